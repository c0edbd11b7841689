"""Conversations between clients and a worker, as hostile.c reads them: recorded from a TCP link."""
import os
import socket
import struct
import subprocess
import threading

HEADER = struct.Struct("<IHHQQQ")       # struct wire_record
FRAME = struct.Struct("<IIII")          # struct wire_frame
ENTRY = struct.Struct("<IIHHIQQ")       # struct entry of hostile.c
ANSWER, BLOB, MORE, OUTPUT = 1, 4, 8, 16
KEY = 32                                # WIRE_KEY_BYTES
LARGEST = 128 << 10                     # of a message that is kept


class Recorder:
    """A proxy before a server on `port` that keeps what passes, a connection after the other."""

    def __init__(self, port):
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "tcp:127.0.0.1:%d" % self.listener.getsockname()[1]
        self.streams = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self.port))
            kept = (bytearray(), bytearray())
            self.streams.append(kept)
            for a, b, into in ((here, there, kept[0]), (there, here, kept[1])):
                threading.Thread(target=self.carry, args=(a, b, into), daemon=True).start()

    @staticmethod
    def carry(a, b, into):
        try:
            while data := a.recv(1 << 16):
                into += data
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def records(stream, behind):
    """Of each channel: its records, in order. `behind`: bytes that follow the hello or its answer."""
    at, channels = 4 + (struct.unpack_from("<I", stream)[0] & 0x7fffffff) + behind, {}
    while at + FRAME.size <= len(stream):
        kind, channel, size, _ = FRAME.unpack_from(stream, at)
        at += FRAME.size
        if kind == 1:
            channels.setdefault(channel, bytearray()).extend(stream[at:at + size])
            at += size
    found = {}
    for channel, data in channels.items():
        at = 0
        while at + HEADER.size <= len(data):
            size, kind, flags, ticket, context, more = HEADER.unpack_from(data, at)
            payload = bytes(data[at + HEADER.size:at + HEADER.size + size])
            found.setdefault(channel, []).append((kind, flags, ticket, context, more, payload))
            at += (HEADER.size + size + 31) & ~31
    return found


def entry(is_answer, kind, flags, context, more, payload):
    data = ENTRY.pack(is_answer, len(payload), kind, flags, 0, context, more) + payload
    return data + bytes(-len(data) % 8)


def conversation(kept):
    """All channels as one, in the order of the tickets; each request with its answer behind it."""
    to, back = records(kept[0], 0), records(kept[1], KEY)
    groups = []
    for channel, asked in to.items():
        answers = [r for r in back.get(channel, []) if not r[1] & OUTPUT]
        at, group, first = 0, [], 0
        for kind, flags, ticket, context, more, payload in asked:
            group.append(entry(0, kind, flags, context, more, payload))
            first = max(first, len(payload))
            if ticket == 0 and not flags & (ANSWER | BLOB) and more:
                continue  # a part of the next one's inputs
            if flags & ANSWER:
                whole = b""
                while at < len(answers):
                    part = answers[at]
                    at += 1
                    whole += part[5]
                    if not part[1] & MORE:
                        break
                group.append(entry(1, kind, 0, 0, 0, whole[:4096]))
            if first <= LARGEST:
                groups.append((ticket, len(groups), b"".join(group)))
            group, first = [], 0
    return b"".join(g for _, _, g in sorted(groups))


def record(build, port, folder):
    """Runs programs that use much of the API; files of their conversations."""
    library = os.path.join(build, "lib/libcuda.so.1")
    files = []
    tests = [("workload", [os.path.join(build, "tests/bridge/workload"), "0.4", "3", "1"])]
    tests += [(name, [os.path.join(build, "tests/device/test_device_" + name)]) for name in ("memory", "stream", "graph", "launch")]
    for name, command in tests:
        recorder = Recorder(port)
        subprocess.run(command, env=dict(os.environ, LIBCUDA=library, FARWARP_SERVER=recorder.address, FARWARP_LOG="error:/dev/null",
                                         FARWARP_WIRE_STREAMS="0"),
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
        recorder.listener.close()
        for number, kept in enumerate(recorder.streams):
            data = conversation(kept)
            if len(data) > 1000:
                files.append(os.path.join(folder, "%s-%d" % (name, number)))
                open(files[-1], "wb").write(data)
    return files
