"""An RTSP camera: run by the system's python3, which has GStreamer's bindings. Prints `ready` once it listens.

    python3 rtsp_server.py PORT RATE [USER PASSWORD]

Its pictures, 160 x 128, show the wall clock: milliseconds, modulo 2**20, as twenty blocks that are white for 1, the
lower ten bits in the upper row.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PIPELINE = (
    "( appsrc name=pixels is-live=true format=time do-timestamp=true"
    " caps=video/x-raw,format=GRAY8,width=160,height=128,framerate={rate}/1"
    " ! videoconvert ! video/x-raw,format=I420"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={rate} bitrate=800"
    " ! rtph264pay name=pay0 pt=96 )"
)


def main() -> None:
    port, rate, *login = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(PIPELINE.format(rate=rate))
    factory.set_shared(True)
    factory.connect("media-configure", lambda _, media: film(media, 1 / int(rate)))
    if login:
        protect(server, factory, *login)
    server.get_mount_points().add_factory("/camera", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


def film(media: GstRtspServer.RTSPMedia, interval: float) -> None:
    pixels = media.get_element().get_by_name_recurse_up("pixels")

    def push() -> bool:
        return pixels.emit("push-buffer", Gst.Buffer.new_wrapped(clock())) == Gst.FlowReturn.OK

    timer = GLib.timeout_add(round(1000 * interval), push)
    media.connect("unprepared", lambda _: GLib.source_remove(timer))


def clock() -> bytes:
    stamp = time.time_ns() // 1_000_000
    blocks = [(b"\xff" if stamp >> bit & 1 else b"\0") * 16 for bit in range(20)]
    return b"".join(blocks[:10]) * 64 + b"".join(blocks[10:]) * 64


def protect(
    server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory, user: str, password: str
) -> None:
    auth = GstRtspServer.RTSPAuth.new()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken.new()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions.new()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
