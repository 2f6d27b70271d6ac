"""Settings of structured outputs and tools."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StructuredSettings(BaseModel):
    """What compiling a client's grammar may cost, and how tool calls are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compile_cpu_s: int = Field(default=2, ge=1, description="CPU seconds that trying out one grammar may take.")
    compile_timeout_s: float = Field(default=10.0, gt=0, description="Seconds likewise, by the clock.")
    compile_memory_mb: int = Field(default=512, ge=64, description="Memory likewise.")
    max_waiting: int = Field(default=64, ge=1, description="New grammars that may be under trial; more get 429.")
    max_waiting_each: int = Field(default=8, ge=1, description="Likewise, of one key or address.")
    max_cached: int = Field(default=1024, ge=1, description="Verdicts on grammars that are kept.")
    tool_call_parser: str = Field(
        default="auto", description="hermes, llama, mistral or deepseek; auto: by the chat template."
    )
