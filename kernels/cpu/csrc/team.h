/* A team of threads: the caller and others beside it, which wait spinning for a while and then sleep. */
#ifndef ISOTOKEN_CPU_TEAM_H
#define ISOTOKEN_CPU_TEAM_H

#include "worker.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <sys/types.h>
#include <thread>
#include <vector>

namespace isotoken {
struct Kernels;
}

/* What a team's threads do together; each calls it once. */
typedef void (*Together)(void *argument, isotoken::Worker &worker);

/* A line of the caches to itself, so that threads do not take it from each other. */
struct alignas(128) Counter {
    std::atomic<uint64_t> value{0};
};

/* Memory that grows and is kept. */
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch &) = delete;
    ~Scratch();
    void *reserve(size_t bytes);

  private:
    void *memory_ = nullptr;
    size_t size_ = 0;
};

struct Team {
    Team(const isotoken::Kernels &kernels, int32_t num_threads, const int32_t *cpus, int32_t spin_us);

    /* Where cpus were given, the thread that made the last of its teams may run where it might before the first. */
    ~Team();

    const isotoken::Kernels &kernels; /* of the instruction set that this team runs */

    /* Run work(argument, worker) on every thread, and return when all are done. One caller at a time. In a fork threads
     * are started first: std::system_error, std::bad_alloc. */
    void run(Together work, void *argument);

    void barrier(int32_t thread);

    /* Of isotoken_run: seconds of each operation, where profiling is on. */
    bool profiling = false;
    std::vector<double> seconds;

    std::vector<Scratch> scratch;

  private:
    void start();
    void stop();
    void forget_threads();
    void give_job();
    void serve(int32_t thread, uint64_t last_job);
    template <class Done> void wait(int64_t spin_ns, Done done);
    void wake();
    void pin(int32_t thread) const;
    void pin_caller();
    void release_caller();

    const int32_t num_threads_;
    const std::vector<int32_t> cpus_;
    const int64_t spin_ns_;
    std::vector<std::thread> threads_;
    void *caller_ = nullptr; /* what was kept of the thread that was pinned */
    pid_t process_ = 0; /* in which the threads run: a fork has none of them */

    std::vector<Counter> arrivals_; /* barriers that each thread has come to */
    Counter jobs_;                  /* that were given out */
    Counter sleepers_;
    Together work_ = nullptr;
    void *argument_ = nullptr;
    std::mutex *mutex_; /* on the heap: a fork may find it locked, and leaves it behind */
    std::condition_variable *changed_;
};

#endif
