"""A server on the loopback address, and cards whose downloads it has; the fixture `server` starts one."""

import dataclasses
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from bench.data.card_tables import Task
from bench.data.cards import Card, Download
from bench.data.download import CHUNK

DATA = np.random.default_rng(0).bytes(3 * CHUNK + 1000)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``files``; counts what it sends; may know no Range, or break off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.ranges = True
        self.break_after = None  # bytes of the next body, once
        self.wrong_range = False
        self.asked = []  # path and Range of each request
        self.sent = 0

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, name, asked = self.server, self.path[1:], self.headers["Range"]
        server.asked.append((name, asked))
        if name not in server.files:
            return self.send_error(404)
        data, start = server.files[name], 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            begin = start + server.wrong_range
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:][: server.break_after]
        server.break_after = None
        server.sent += len(body)  # before the client can have it and look
        self.wfile.write(body)


def card_of(server, files, **changed):
    """A card whose downloads are these files of the server: name -> (data, path, unpack)."""
    server.files |= {name: data for name, (data, _, _) in files.items()}
    downloads = tuple(Download(server.url(n), sha256(d), path, unpack) for n, (d, path, unpack) in files.items())
    home = "https://example.org/data"
    card = Card("mine", "Mine", {"label": Task()}, licence="CC0", home=home, downloads=downloads)
    return dataclasses.replace(card, **changed)


def left_over(home):
    """Everything below the hidden folder but its lock."""
    return sorted(path.name for path in (home / "downloads" / ".mine").iterdir() if path.name != "lock")
