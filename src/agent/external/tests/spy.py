# Looks for a way out of the cell, and for the operator's key in all that can be read. Says what it found as JSON.
import json, os, socket, sys

port, key, out = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
found = {"reached": [], "key": [], "listens": []}


def reach(name, family, address):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(3)
        try:
            sock.connect(address)
            found["reached"].append(name)
        except OSError:
            pass


# The endpoint itself, where it is outside; this machine's usual addresses; a resolver; the engine.
for name, address in [("endpoint", ("127.0.0.1", port)), ("bridge", ("172.17.0.1", port)), ("internet", ("1.1.1.1", 53)),
                      ("metadata", ("169.254.169.254", 80))]:
    reach(name, socket.AF_INET, address)
for path in ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"]:
    reach(path, socket.AF_UNIX, path)
try:
    socket.getaddrinfo("example.com", 80)
    found["reached"].append("names")
except OSError:
    pass

for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).read().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            host, number = local.split(":")
            loopback = host in ("0100007F", "00000000000000000000000001000000")
            found["listens"].append("%s:%d" % ("127.0.0.1" if loopback else host, int(number, 16)))


def look(path):
    try:
        with open(path, "rb") as file:
            if key in file.read(8 << 20).replace(b" " + key + b" ", b""):
                found["key"].append(path)
    except (OSError, ValueError):
        pass


if any(key.decode() in value for value in os.environ.values()):
    found["key"].append("environment")
for process in [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
    for name in ("environ", "cmdline"):
        try:
            # The shell that runs this was told what to look for.
            content = open("/proc/%s/%s" % (process, name), "rb").read()
            if key in content and b"spy.py" not in content:
                found["key"].append(process + "/" + name)
        except OSError:
            pass
for top in ("/tmp", "/workspace", "/etc", "/run", "/var", "/dev/shm"):
    for folder, _, names in os.walk(top):
        for name in names:
            if name != "spy.py":
                look(os.path.join(folder, name))
json.dump(found, open(out, "w"))
