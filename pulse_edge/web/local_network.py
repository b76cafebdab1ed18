"""This machine's address in the local network. Sends nothing. Standard library only."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from pulse_edge.errors import ServeError

_TARGETS = ("10.255.255.254", "172.31.255.254", "192.168.255.254", "192.0.2.1")
"""Private networks (RFC 1918), and an address of the documentation (RFC 5737) for the default
route. Connecting a datagram socket only asks the routing table; no packet leaves."""


def own_address(named: str | None = None) -> str:
    """Return the address to listen on for phones: the `named` one, else the one that the routing
    table gives.

    Raises ServeError where there is none, or the named one is no address of a network.
    """
    if named is not None:
        try:
            address = ipaddress.ip_address(named)
        except ValueError:
            raise ServeError(
                f"{named}: is no IP address. Name this laptop's, such as 192.168.1.20."
            ) from None
        if address.is_unspecified or address.is_multicast:
            raise ServeError(f"{named}: is no address of one network. Name this laptop's own.")
        return str(address)
    for target in _TARGETS:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
        ):
            asking.connect((target, 9))
            address = ipaddress.ip_address(asking.getsockname()[0])
            # A public address would show the port to the Internet: that takes --phone-address.
            if address.is_private and not address.is_loopback and not address.is_unspecified:
                return str(address)
    raise ServeError(
        "--phone: this laptop has no address in a private network. Connect it to the Wi-Fi of the "
        "ward, or name its address with --phone-address."
    )
