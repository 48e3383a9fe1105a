#!/usr/bin/env python3
"""Runs a program under qemu-user, stopped at its first instruction, and leads gdb's remote protocol from the standard
input and to the standard output to qemu's stub: `target remote | stub.py PROGRAM`. What the program prints goes to
the standard error. The program is killed when gdb goes."""
import os, select, socket, subprocess, sys, tempfile, time

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "gdb")
    program = subprocess.Popen([os.environ["QEMU"], "-g", path, *sys.argv[1:]], stdin=subprocess.DEVNULL, stdout=2)
    try:
        stub = socket.socket(socket.AF_UNIX)
        while stub.connect_ex(path) != 0:
            if program.poll() is not None:
                sys.exit(f"stub.py: qemu ended with {program.returncode}")
            time.sleep(0.01)
        while True:
            ready, _, _ = select.select([0, stub], [], [])
            if 0 in ready:
                request = os.read(0, 65536)
                if not request:
                    break
                stub.sendall(request)
            if stub in ready:
                try:
                    answer = stub.recv(65536)
                except ConnectionResetError:
                    break
                if not answer:
                    break
                while answer:
                    answer = answer[os.write(1, answer) :]
    finally:
        program.kill()
        program.wait()
