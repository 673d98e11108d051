"""What a place is looked at for."""

from __future__ import annotations

from dataclasses import dataclass

# they change what a trial computes, or whether it asks the hub; workers have those of their node
VARIABLES = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "MKL_NUM_THREADS", "MKL_CBWR", "ATEN_CPU_CAPABILITY",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """out, data: absolute, the results folder and the root of the datasets. cpus, gpus: of a trial (gpus None: one
    where there are any). nodes: how many there are to be. seconds: in which a node must answer. cache: the one that is
    named here, which a run carries to all nodes."""

    out: str
    data: str | None = None
    plugins: tuple[str, ...] = ()
    cpus: float = 1.0
    gpus: float | None = None
    nodes: int | None = None
    seconds: float = 120.0
    cache: str | None = None
