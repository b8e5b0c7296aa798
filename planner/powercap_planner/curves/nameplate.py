"""Nameplate and parked watts of GPU types: what bounds a replica nobody has measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

LIMIT_TOLERANCE = 1.02
"""Mean power over 10 s or more stays within this factor of the enforced limit (measured)."""
HOST_SHARE_WATTS_PER_GPU = 100.0
"""Host watts attributed to one busy GPU: two 400 W sockets for eight GPUs."""
UNMEASURED_MARGIN = 1.2
"""Margin over nameplate for a deployment never measured: limit tolerance and host share."""
UNKNOWN_GPUS_PER_REPLICA = 8
"""Charged when the GPUs of a replica are not known: a whole usual host."""
PARKED_SHARE = 0.16
"""Parked watts assumed as a share of nameplate where no reading is published: the known ones are
10 to 16 %, and too little would be read as watts to spend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuType:
    """One type of GPU."""

    name: str
    nameplate_watts: float
    parked_watts: float
    """No replica on it."""
    is_parked_assumed: bool

    def ceiling_watts(self, gpus: int) -> float:
        """Return the most watts a replica can draw as a mean over 10 s or more, host included."""
        return gpus * (self.nameplate_watts * LIMIT_TOLERANCE + HOST_SHARE_WATTS_PER_GPU)

    def unmeasured_watts(self, gpus: int) -> float:
        """Return the watts charged for a replica that was never measured."""
        return gpus * self.nameplate_watts * UNMEASURED_MARGIN


def _gpu(name: str, nameplate_watts: float, parked_watts: float | None = None) -> GpuType:
    return GpuType(
        name=name,
        nameplate_watts=nameplate_watts,
        parked_watts=PARKED_SHARE * nameplate_watts if parked_watts is None else parked_watts,
        is_parked_assumed=parked_watts is None,
    )


# Nameplate: "max thermal design power" or "TDP" of the vendors' data sheets (NVIDIA H100, H200,
# DGX B200, HGX B300, GB200 NVL72, A100, A10, L40S, L40, L4, T4, V100; AMD Instinct MI250X, MI300X,
# MI325X, MI355X). Parked: nvidia-smi and DCGM readings with nothing loaded, published by users:
# H100 70 W (nvidia_gpu_exporter's captures), H200 74 to 78 W, B200 136 to 145 W, A100 SXM4 33 to
# 50 W with 40 GB and 51 to 68 W with 80 GB, T4 about 10 W (dcgm-exporter's capture).
# First match wins: the words must all occur in the exporter's name; where a name leaves the form
# factor open, the entry with more watts is the one that stands without the extra word.
_TYPES: tuple[tuple[frozenset[str], GpuType], ...] = tuple(
    (frozenset(words.split()), gpu)
    for words, gpu in (
        ("GB300", _gpu("GB300", 1400.0)),
        ("GB200", _gpu("GB200", 1200.0)),
        ("B300", _gpu("B300", 1400.0)),
        ("B200", _gpu("B200", 1000.0, 140.0)),
        ("H200 NVL", _gpu("H200 NVL", 600.0)),
        ("H200", _gpu("H200 SXM", 700.0, 75.0)),
        ("H100 PCIE", _gpu("H100 PCIe", 350.0)),
        ("H100 NVL", _gpu("H100 NVL", 400.0)),
        ("H100", _gpu("H100 SXM", 700.0, 70.0)),
        ("A100 PCIE", _gpu("A100 PCIe", 300.0)),
        ("A100 PCI", _gpu("A100 PCIe", 300.0)),
        ("A100 40GB", _gpu("A100 SXM 40GB", 400.0, 45.0)),
        ("A100", _gpu("A100 SXM", 400.0, 63.0)),
        ("A10G", _gpu("A10G", 300.0)),
        ("A10", _gpu("A10", 150.0)),
        ("L40S", _gpu("L40S", 350.0)),
        ("L40", _gpu("L40", 300.0)),
        ("L4", _gpu("L4", 72.0)),
        ("T4", _gpu("T4", 70.0, 10.0)),
        ("V100", _gpu("V100 SXM", 300.0)),
        ("MI355X", _gpu("MI355X", 1400.0)),
        ("MI325X", _gpu("MI325X", 1000.0)),
        ("MI300X", _gpu("MI300X", 750.0)),
        ("MI250X", _gpu("MI250X", 560.0)),
    )
)

LARGEST = max((gpu for _, gpu in _TYPES), key=lambda gpu: gpu.nameplate_watts)
"""Charged for a GPU whose type is not known: no known type draws more."""


def find_gpu(name: str | None) -> GpuType | None:
    """Return the type an exporter's model name means, None when it is not in the table.

    Names are matched by their words: ``NVIDIA H100 80GB HBM3``, ``A100-SXM4-40GB`` and ``h100``
    are all found.
    """
    words = set(re.split(r"[^A-Z0-9]+", (name or "").upper()))
    return next((gpu for needed, gpu in _TYPES if needed <= words), None)
