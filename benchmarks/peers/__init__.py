"""Other engines, measured beside isotoken: each runs in a process and an environment of its own.

    python -m benchmarks.peers setup genai --venv DIR
    python -m benchmarks.peers compare genai --peer-python DIR/bin/python --backend onnxruntime --precision int8

A peer's packages may clash with isotoken's (onnxruntime-genai brings the plain onnxruntime, which overwrites the files
of onnxruntime-gpu), so nothing of a peer is ever imported here: a worker (`genai_worker.py`, `openvino_worker.py`) runs
under the peer's Python, knows nothing of isotoken, and is driven through its standard input and output.
"""
