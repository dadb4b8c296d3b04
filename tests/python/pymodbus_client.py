"""A pymodbus client: reads, writes, reads again; prints one line for each.

usage: pymodbus_client.py SOURCE SERVER PORT UNIT
"""

import logging
import sys

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

logging.disable(logging.CRITICAL)


def attempt(name, call):
    """Prints what came of a request."""
    try:
        answer = call()
    except (ModbusException, OSError) as error:
        print(f"{name} failed: {type(error).__name__}")
        return
    if answer.isError():
        print(f"{name} failed: {answer}")
    else:
        print(f"{name} done: {getattr(answer, 'registers', '')}")


def main():
    """Connects, reads, writes in three ways, and reads again."""
    source, server, port, unit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    client = ModbusTcpClient(
        server, port=port, source_address=(source, 0), timeout=3, retries=0
    )
    if not client.connect():
        print("connect failed")
        return
    print("connect done")
    read = lambda: client.read_holding_registers(10, count=2, device_id=unit)
    attempt("read", read)
    writes = {
        "write-single-register": lambda: client.write_register(10, 900, device_id=unit),
        "write-multiple-registers": lambda: client.write_registers(10, [900, 901], device_id=unit),
        "write-single-coil": lambda: client.write_coil(10, True, device_id=unit),
    }
    for name, write in writes.items():
        attempt(name, write)
        client.close()
        client.connect()
    attempt("read-again", read)
    client.close()


main()
