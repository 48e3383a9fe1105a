#!/usr/bin/env python3
"""Runs compilers and other tools of the host for the system emulator (tests/aarch64/system.sh), which has none.

    tools.py FOLDER PATH

A request is a folder in FOLDER: `words` has the working folder, the name of the tool and its arguments, each ended by
a zero byte, and becomes `taken`. The answer is `out`, `err`, and then `status`. Tools are looked for in PATH first.
"""
import os, subprocess, sys, time

folder, path = sys.argv[1:]
environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"}
running = {}
while os.path.isdir(folder):
    for name in os.listdir(folder):
        request = os.path.join(folder, name)
        words = os.path.join(request, "words")
        if not os.path.exists(words):
            continue
        where, *command = open(words, "rb").read().split(b"\0")[:-1]
        os.rename(words, os.path.join(request, "taken"))
        with open(os.path.join(request, "out"), "wb") as out, open(os.path.join(request, "err"), "wb") as err:
            running[request] = subprocess.Popen(
                command, cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
    for request, process in list(running.items()):
        if process.poll() is not None:
            new = os.path.join(request, "status.new")
            open(new, "w").write(f"{process.returncode & 255}\n")
            os.rename(new, os.path.join(request, "status"))
            del running[request]
    time.sleep(0.02)
