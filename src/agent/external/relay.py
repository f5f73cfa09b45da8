# The relay of coinop's external agents. It runs in the cell, listens on 127.0.0.1 and hands every connection on over its
# standard input and output, as frame.rs describes. It knows nobody outside: there is no network here.
import errno, os, selectors, signal, socket, struct, sys, time

PORT, FOLDER, WINDOW, MOST_OPEN = int(sys.argv[1]), sys.argv[2], 65536, 32
HELLO, OPEN, DATA, END, RESET, CREDIT, FILE, START, STOP = range(1, 10)
MOST_CARRIED, MOST_WAITING, KILL_AFTER = 16384, 262144, 3.0

poll = selectors.DefaultSelector()
from_us, to_us = bytearray(), bytearray()
connections, listener, last, kill_at = {}, None, 0, None
instructions = None


class Connection:
    def __init__(self, number, sock):
        self.number, self.sock, self.credit, self.out = number, sock, WINDOW, bytearray()
        self.theirs_ended = self.ours_ended = self.shut = False

    def wants(self):
        reading = not self.theirs_ended and self.credit > 0 and len(to_us) < MOST_WAITING
        return (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if self.out else 0)


def send(kind, number=0, carried=b""):
    to_us.extend(struct.pack(">BIH", kind, number, len(carried)) + carried)


def watch(fd, events, data):
    known = poll.get_map().get(fd if isinstance(fd, int) else fd.fileno())
    if known and not events:
        poll.unregister(fd)
    elif known and known.events != events:
        poll.modify(fd, events, data)
    elif not known and events:
        poll.register(fd, events, data)


def drop(connection, tell):
    if connections.pop(connection.number, None):
        watch(connection.sock, 0, None)
        connection.sock.close()
        if tell:
            send(RESET, connection.number)


def settle(connection):
    if connection.ours_ended and not connection.out and not connection.shut:
        connection.shut = True
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    if connection.shut and connection.theirs_ended:
        drop(connection, False)


def accept():
    global last
    sock, _ = listener.accept()
    if len(connections) >= MOST_OPEN:
        sock.close()
        return
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    last += 1
    connections[last] = Connection(last, sock)
    send(OPEN, last)


def serve(connection, events):
    try:
        if events & selectors.EVENT_READ:
            came = connection.sock.recv(min(MOST_CARRIED, connection.credit))
            if came:
                connection.credit -= len(came)
                send(DATA, connection.number, came)
            else:
                connection.theirs_ended = True
                send(END, connection.number)
        if events & selectors.EVENT_WRITE and connection.out:
            written = connection.sock.send(connection.out)
            del connection.out[:written]
            send(CREDIT, connection.number, struct.pack(">I", written))
        settle(connection)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EINTR):
            drop(connection, True)


def end_agent(how):
    try:
        with open(os.path.join(FOLDER, "pid")) as file:
            pid = int(file.read())
        group = os.getpgid(pid)
        if group == os.getpgrp():
            os.kill(pid, how)
        else:
            os.killpg(group, how)
    except (OSError, ValueError):
        pass


def take(kind, number, carried):
    global listener, kill_at, instructions
    if kind == FILE:
        if instructions is None:
            os.makedirs(FOLDER, 0o700, exist_ok=True)
            instructions = open(os.path.join(FOLDER, "instructions.md"), "wb")
        instructions.write(carried)
    elif kind == START:
        instructions.close()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen(MOST_OPEN)
        listener.setblocking(False)
        poll.register(listener, selectors.EVENT_READ, "listener")
        send(HELLO, 0, b"\x01")
    elif kind == STOP:
        end_agent(signal.SIGTERM)
        kill_at = time.monotonic() + KILL_AFTER
    elif number in connections:
        connection = connections[number]
        if kind == DATA:
            connection.out.extend(carried)
        elif kind == CREDIT:
            connection.credit += struct.unpack(">I", carried)[0]
        elif kind == RESET and connection.ours_ended:
            # Nobody reads what comes now; what is under way to the program still gets there.
            connection.theirs_ended = True
            settle(connection)
        elif kind == RESET:
            drop(connection, False)
        elif kind == END:
            connection.ours_ended = True
            settle(connection)


def hear():
    came = os.read(0, 65536)
    if not came:
        sys.exit(0)
    from_us.extend(came)
    while len(from_us) >= 7:
        kind, number, size = struct.unpack(">BIH", from_us[:7])
        if len(from_us) < 7 + size:
            break
        carried = bytes(from_us[7:7 + size])
        del from_us[:7 + size]
        take(kind, number, carried)


def tell():
    try:
        del to_us[:os.write(1, to_us)]
    except BlockingIOError:
        pass


os.set_blocking(0, False)
os.set_blocking(1, False)
poll.register(0, selectors.EVENT_READ, "hear")
while True:
    if kill_at is not None and time.monotonic() >= kill_at:
        end_agent(signal.SIGKILL)
        kill_at = None
    watch(1, selectors.EVENT_WRITE if to_us else 0, "tell")
    if listener is not None:
        watch(listener, selectors.EVENT_READ if len(to_us) < MOST_WAITING else 0, "listener")
    for connection in list(connections.values()):
        watch(connection.sock, connection.wants(), connection)
    for key, events in poll.select(None if kill_at is None else max(0.0, kill_at - time.monotonic())):
        try:
            if key.data == "hear":
                hear()
            elif key.data == "tell":
                tell()
            elif key.data == "listener":
                accept()
            elif key.data.number in connections:
                serve(key.data, events)
        except BrokenPipeError:
            sys.exit(0)
        except OSError as error:
            if key.data != "listener" and error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
