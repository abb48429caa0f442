"""A small RTSP server for tests; runs under the system's Python, which has `gi` and GStreamer.

Usage: python3 rtsp_server.py PORT PATH LAUNCH [USER PASSWORD]; port 0 takes a free one. Prints the port that it
listens on; drops all its clients for each line on its stdin, and ends with it.
"""

import sys

import gi  # type: ignore[import-not-found,import-untyped,unused-ignore]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import (  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: E402
    GLib,
    Gst,
    GstRtspServer,
)


def main(port: str, path: str, launch: str, user: str = "", password: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    if user:
        ask_for_password(server, factory, user, password)
    server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_IN | GLib.IO_HUP, lambda _, why: obey(server, loop, why))
    loop.run()


def ask_for_password(server, factory, user, password) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)  # noqa: FBT003 - GObject's own
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)  # noqa: FBT003
    factory.set_permissions(permissions)


def obey(server, loop, why) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
    if why & GLib.IO_HUP or not sys.stdin.readline():
        loop.quit()
        return False
    server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
