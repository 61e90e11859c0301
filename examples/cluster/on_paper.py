"""Estimates what 8, 64 and 1,024 devices would take; docs/many_devices.md has the reasons.

python examples/cluster/on_paper.py

Edit the networks and the links below for your own.
"""

import math
from typing import NamedTuple

MACHINE = 8  # devices
COMPUTE = 0.4 * 989e12  # operations/s of a device: 40 % of an H100's bfloat16
MEMORY = 80e9  # bytes of a device
INSIDE = 450e9  # bytes/s between a machine's devices: NVLink 4, one way
INFINIBAND = 400e9  # bytes/s into a machine: 400 Gbit/s for each of its devices
ETHERNET = 12.5e9  # bytes/s into a machine: 100 Gbit/s
HOP_INSIDE, HOP_BETWEEN = 0.5e-6, 5e-6  # s for a message to the next device, machine
STORAGE = 1e9  # bytes/s that one process reads or writes
NUMBER = 4  # bytes of a weight, of its gradient and of each of AdamW's two averages
FAILURE = 54 * 24 * 16384 / 419  # device hours between two failures


class Network(NamedTuple):
    """A network to be trained."""

    name: str
    parameters: float
    least: float  # s that an update computes, however few examples a device has
    tokens: float  # of a device in an update; where 0, the batch is fixed
    batch: int = 0  # examples in an update, of all devices together


NETWORKS = (
    Network("sample", 13810, 1e-3, 0, 512),
    Network("100 M", 100e6, 1e-3, 16 * 1024),
    Network("7 B", 7e9, 1e-3, 2 * 4096),
)


def main():
    """Prints the tables."""
    print("an update                 batch  compute     sent       InfiniBand         Ethernet")
    for network in NETWORKS:
        for devices in (8, 64, 1024):
            print(update_line(network, devices))
    print("\na device's memory   shards     kept    whole  gradient     all")
    for network in NETWORKS[1:]:
        for shards in (1, 8, 64):
            print(memory_line(network, shards))
    print("\na checkpoint     size  written  read by 8       64    1,024 processes")
    for network in NETWORKS:
        print(checkpoint_line(network))
    print("\ndevices   hours between two failures")
    for devices in (8, 64, 1024):
        print(f"{devices:>7,}   {FAILURE / devices:>25,.0f}")


def update_line(network, devices):
    """Returns a line of the first table; the shares are compute / (compute + exchange)."""
    seconds, gradient = computing(network), NUMBER * network.parameters
    batch = max(network.batch, devices) if network.batch else devices * network.tokens
    links = ""
    for link in (INFINIBAND, ETHERNET):
        exchange = all_reduce(gradient, devices, link)
        links += f"  {short(exchange, 's')} ({seconds / (seconds + exchange):4.0%})"
    return (
        f"{network.name:<8} on {devices:>5,} {batch:>12,.0f}  {short(seconds, 's')}"
        f"  {short(ring(gradient, devices), 'B')}{links}"
    )


def computing(network):
    """Returns the seconds that a device computes for an update: 6 operations a weight and token."""
    return max(network.least, 6 * network.parameters * network.tokens / COMPUTE)


def ring(number_of_bytes, devices):
    """Returns the bytes that each device sends to its neighbour until all have the sum.

    The array has one part per device. Each device sends all but one, first to be summed, then to be
    shared.
    """
    return 2 * (devices - 1) / devices * number_of_bytes


def all_reduce(number_of_bytes, devices, link):
    """Returns the seconds in which all devices get the sum of what each has.

    A ring enters and leaves each machine once. Small arrays are sent through a tree of machines
    instead, where the hops take longer than the bytes (the model of NCCL's src/graph/tuning.cc).
    """
    machines = max(1, devices / MACHINE)
    slowest = INSIDE if machines == 1 else link
    hops = (MACHINE - 1) * HOP_INSIDE + math.log2(machines) * HOP_BETWEEN
    return ring(number_of_bytes, devices) / slowest + 2 * hops


def memory_line(network, shards):
    """Returns a line of the second table, without the activations of the network."""
    array = NUMBER * network.parameters
    kept = 3 * array / shards  # weights and AdamW's averages
    whole = array if shards > 1 else 0  # weights gathered for the network
    total = kept + whole + array
    fits = "" if total < MEMORY else "  too much"
    parts = "  ".join(short(one, "B") for one in (kept, whole, array, total))
    return f"{network.name:<17}   {shards:>6}  {parts}{fits}"


def checkpoint_line(network):
    """Returns a line of the third table: size, seconds to write, bytes that all processes read."""
    kept = 3 * NUMBER * network.parameters
    read = "  ".join(short(kept * processes, "B") for processes in (8, 64, 1024))
    return f"{network.name:<12}  {short(kept, 'B')}  {short(kept / STORAGE, 's')}    {read}"


def short(value, unit):
    """Returns a number of bytes or seconds with three digits and an SI prefix."""
    if value == 0:
        return "-".rjust(7)
    power = math.floor(math.log10(value) / 3)
    prefix = {-2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}[power]
    return f"{value / 1000**power:.3g} {prefix + unit:<2}".rjust(7)


if __name__ == "__main__":
    main()
