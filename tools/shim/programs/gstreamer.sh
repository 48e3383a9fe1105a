# GStreamer: its plug-ins.
# Packages: gstreamer1.0-tools gstreamer1.0-plugins-base
set -eu
[ "$1" = run ] || exit 0
# Plug-ins are opened in this process, anew.
export GST_REGISTRY="$PWD/registry.bin" GST_REGISTRY_FORK=no HOME="$PWD" XDG_RUNTIME_DIR="$PWD"
gst-inspect-1.0 --no-colors | sort
gst-launch-1.0 -q videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48 ! videoconvert ! videoscale ! \
    video/x-raw,format=RGB,width=32,height=24 ! filesink location=x.rgb
cksum <x.rgb
gst-launch-1.0 -q audiotestsrc num-buffers=5 ! audioconvert ! audioresample ! vorbisenc ! oggmux ! oggdemux ! \
    vorbisdec ! audioconvert ! audio/x-raw,format=S16LE ! filesink location=x.raw
test -s x.raw && echo decoded
gst-launch-1.0 -q nothing ! fakesink 2>&1 || echo "exit code $?"
