/* See team.h. A barrier is a counter for each thread that all others watch: one hop between caches, and no thread that
 * would have to wait for another to tell it that all have come. */
#include "team.h"

#include <chrono>
#include <cstdlib>
#include <new>
#include <unistd.h>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

using isotoken::Worker;

namespace {

/* A thread that waits in a barrier spins for as long as one that is late by chance may need, then lets others run, and
 * sleeps: where other programs run too, it loses its share of a processor and no more. */
const int64_t BARRIER_SPIN_NS = 25000;
const int YIELDS = 4;
const int SPINS_A_LOOK = 64; /* at the clock */

inline void spin_once() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int64_t now_ns() {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

#if defined(__linux__)
/* Where a thread might run before teams pinned it, and how many of those live. */
struct Caller {
    int32_t teams = 0;
    cpu_set_t cpus;
};
thread_local Caller this_caller;
#endif

} // namespace

Scratch::~Scratch() { std::free(memory_); }

void *Scratch::reserve(size_t bytes) {
    if (bytes > size_) {
        size_t size = (bytes + bytes / 4 + 4095) & ~(size_t)4095;
        void *memory = nullptr;
        if (posix_memalign(&memory, 4096, size)) return nullptr;
        std::free(memory_);
        memory_ = memory;
        size_ = size;
    }
    return memory_;
}

void Worker::barrier() { team->barrier(thread); }

void *Worker::scratch(size_t bytes) { return team->scratch[(size_t)thread].reserve(bytes); }

template <class Done> void Team::wait(int64_t spin_ns, Done done) {
    for (const int64_t end = now_ns() + spin_ns;;) {
        for (int i = 0; i < SPINS_A_LOOK; i++) {
            if (done()) return;
            spin_once();
        }
        if (now_ns() >= end) break;
    }
    for (int i = 0; i < YIELDS; i++) {
        std::this_thread::yield();
        if (done()) return;
    }
    sleepers_.value.fetch_add(1);
    {
        std::unique_lock<std::mutex> lock(*mutex_);
        changed_->wait(lock, done);
    }
    sleepers_.value.fetch_sub(1);
}

Team::Team(const isotoken::Kernels &kernels, int32_t num_threads, const int32_t *cpus, int32_t spin_us)
    : kernels(kernels), scratch((size_t)num_threads), num_threads_(num_threads),
      cpus_(cpus ? std::vector<int32_t>(cpus, cpus + num_threads) : std::vector<int32_t>()),
      spin_ns_((int64_t)spin_us * 1000), arrivals_((size_t)num_threads), mutex_(new std::mutex),
      changed_(new std::condition_variable) {
    try {
        start();
    } catch (...) {
        delete changed_;
        delete mutex_;
        throw;
    }
}

Team::~Team() {
    release_caller();
    if (process_ != getpid()) {
        forget_threads(); /* mutex_ and changed_ may be locked for ever: they are left behind too */
        return;
    }
    stop();
    delete changed_;
    delete mutex_;
}

void Team::start() {
    work_ = nullptr;
    pin_caller();
    const uint64_t last = jobs_.value.load();
    try {
        for (int32_t thread = 1; thread < num_threads_; thread++)
            threads_.emplace_back([this, thread, last] { serve(thread, last); });
    } catch (...) { /* no more threads are to be had */
        stop();
        release_caller();
        throw;
    }
    process_ = getpid();
}

void Team::stop() {
    work_ = nullptr;
    give_job();
    for (std::thread &thread : threads_) thread.join();
    threads_.clear();
}

/* In a fork: its parent's threads are not here to be joined, and what they waited with may be locked. */
void Team::forget_threads() {
    for (std::thread &thread : threads_) new (&thread) std::thread;
    threads_.clear();
}

void Team::run(Together work, void *argument) {
    if (process_ != getpid()) {
        forget_threads();
        mutex_ = new std::mutex;
        changed_ = new std::condition_variable;
        sleepers_.value = 0;
        for (Counter &arrival : arrivals_) arrival.value = 0;
        start();
    }
    work_ = work;
    argument_ = argument;
    give_job();
    Worker worker{0, num_threads_, this};
    work(argument, worker);
    barrier(0);
}

void Team::give_job() {
    jobs_.value.fetch_add(1);
    wake();
}

void Team::serve(int32_t thread, uint64_t last) {
    pin(thread);
    Worker worker{thread, num_threads_, this};
    for (;; last++) {
        wait(spin_ns_, [&] { return jobs_.value.load() != last; });
        if (!work_) return;
        work_(argument_, worker);
        barrier(thread);
    }
}

/* What sleepers wait for was stored before, sequentially consistent as sleepers_ is: one of the two sides sees the
 * other. */
void Team::wake() {
    if (!sleepers_.value.load()) return;
    { std::lock_guard<std::mutex> lock(*mutex_); } /* whoever goes to sleep has either seen it or waits already */
    changed_->notify_all();
}

void Team::barrier(int32_t thread) {
    const uint64_t come = arrivals_[(size_t)thread].value.load(std::memory_order_relaxed) + 1;
    arrivals_[(size_t)thread].value.store(come);
    wake();
    for (Counter &arrival : arrivals_)
        if (arrival.value.load() < come) wait(BARRIER_SPIN_NS, [&] { return arrival.value.load() >= come; });
}

void Team::pin_caller() {
#if defined(__linux__)
    if (cpus_.empty()) return;
    if (!caller_ && !this_caller.teams++) {
        CPU_ZERO(&this_caller.cpus); /* where it cannot be told, it is not given back */
        pthread_getaffinity_np(pthread_self(), sizeof this_caller.cpus, &this_caller.cpus);
    }
    caller_ = &this_caller;
#endif
    pin(0);
}

void Team::release_caller() {
#if defined(__linux__)
    if (caller_ == &this_caller && this_caller.teams && !--this_caller.teams)
        pthread_setaffinity_np(pthread_self(), sizeof this_caller.cpus, &this_caller.cpus);
    caller_ = nullptr;
#endif
}

void Team::pin(int32_t thread) const {
#if defined(__linux__)
    if (cpus_.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpus_[(size_t)thread], &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set); /* where it is refused, threads run where they may */
#else
    (void)thread;
#endif
}
