"""RTSP cameras that send one clip: run by the system's python3, which has GStreamer's bindings. Prints `ready`.

    python3 rtsp_cameras.py PORT CAMERAS CLIP.mp4

Camera N is rtsp://127.0.0.1:PORT/N. The clip is sent as it is, so serving takes next to no processor time.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, cameras, clip = sys.argv[1:]
Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service(port)
for number in range(int(cameras)):
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(
        f"( filesrc location={clip} ! qtdemux ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
    )
    server.get_mount_points().add_factory(f"/{number}", factory)
if not server.attach(None):
    sys.exit(f"port {port} is taken")
print("ready", flush=True)
GLib.MainLoop().run()
