"""An HTTP server that receives webhooks, and answers with the statuses that a test sets."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebhookServer:
    """Listens on 127.0.0.1. Posts that were answered with 200 are in `documents`.

    `statuses` are the answers to the next requests; without one it is 200. With the status 0 the
    server answers nothing at all.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.documents: list[dict[str, Any]] = []
        self.paths: list[str] = []
        closing = self._closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.paths.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = server.statuses.pop(0) if server.statuses else 200
                if not status:
                    closing.wait(20)
                    return
                if status == 200:
                    server.documents.append(json.loads(body))
                self.send_response(status)
                self.send_header("Location", f"{server.url}/moved")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def texts(self) -> list[str]:
        """The texts of the posts in Slack's form."""
        return [document["text"] for document in self.documents]

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
