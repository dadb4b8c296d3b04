"""A pymodbus server that writes down every request before it answers.

usage: pymodbus_server.py ADDRESS PORT LOG

A line of the log is the unit id and the PDU in hexadecimal digits.
"""

import logging
import sys

from pymodbus.datastore import (
    ModbusDeviceContext,
    ModbusSequentialDataBlock,
    ModbusServerContext,
)
from pymodbus.server import StartTcpServer


def main():
    """Serves until it is killed."""
    logging.disable(logging.CRITICAL)
    address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    log = open(path, "a", buffering=1, encoding="ascii")

    def trace(sending, pdu):
        if not sending:
            content = bytes([pdu.function_code]) + pdu.encode()
            log.write(f"{pdu.dev_id} {content.hex()}\n")
        return pdu

    def block():
        return ModbusSequentialDataBlock(1, [0] * 65535)

    device = ModbusDeviceContext(di=block(), co=block(), ir=block(), hr=block())
    StartTcpServer(
        context=ModbusServerContext(devices=device, single=True),
        address=(address, port),
        trace_pdu=trace,
    )


main()
