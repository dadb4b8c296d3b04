"""Puts VLAN tags on frames and takes them off, where the kernel has no VLAN interfaces.

usage: tagger.py TRUNK ACCESS TPID:ID [TPID:ID]

Frames that come in on ACCESS leave on TRUNK with the tags, outermost first. Frames that come in
on TRUNK leave on ACCESS without their tags. The kernel has taken the outermost tag off already
when it hands a frame over, and tells it beside the frame.
"""

import select
import socket
import struct
import sys

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET = 263
PACKET_AUXDATA = 8
VLAN_VALID = 1 << 4
VLAN_TPID_VALID = 1 << 6


def opened(interface):
    """A raw socket on an interface, in promiscuous mode."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.bind((interface, ETH_P_ALL))
    raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    index = socket.if_nametoindex(interface)
    raw.setsockopt(SOL_PACKET, 1, struct.pack("IHH8s", index, 1, 0, b""))
    return raw


def received(raw):
    """A frame with all its tags, or nothing for one that left."""
    frame, ancillary, _, address = raw.recvmsg(65536, 128)
    if address[2] == PACKET_OUTGOING:
        return None
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value[:20])
            if status & VLAN_VALID:
                tpid = tpid if status & VLAN_TPID_VALID else 0x8100
                return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
    return frame


def main():
    """Carries frames until it is killed."""
    trunk, access = opened(sys.argv[1]), opened(sys.argv[2])
    tags = b""
    for tag in sys.argv[3:]:
        tpid, number = tag.split(":")
        tags += struct.pack("!HH", int(tpid, 16), int(number))
    while True:
        for ready in select.select([trunk, access], [], [])[0]:
            frame = received(ready)
            if frame is None:
                continue
            try:
                if ready is access:
                    trunk.send(frame[:12] + tags + frame[12:])
                elif frame[12 : 12 + len(tags)] == tags:
                    access.send(frame[:12] + frame[12 + len(tags) :])
            except OSError:
                pass


main()
