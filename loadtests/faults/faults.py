"""All faults, in the table's order."""

from __future__ import annotations

from loadtests.faults import (
    certificate_rotated,
    clock_jump,
    corrupt_model,
    disk_full,
    front_killed,
    memory_limit,
    overload,
    pod_killed,
    sigterm,
    slow_clients,
    triton_gone,
)

MODULES = (
    *(pod_killed, front_killed, sigterm, triton_gone, disk_full, corrupt_model),
    *(clock_jump, certificate_rotated, overload, slow_clients, memory_limit),
)
FAULTS = {module.FAULT.name: module.FAULT for module in MODULES}
