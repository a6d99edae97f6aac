#!/bin/sh
# Makes video/pan.mp4 from three pictures of this folder. Needs ffmpeg with
# libx264 (made with Debian 12's ffmpeg 5.1.9).
#
# 120 frames, 25 a second, 320x240, hard cuts:
#   frames   0..39   real/coffee.png   (real)
#   frames  40..79   real/cat.png      (real)
#   frames  80..119  ai/sd3-2.jpg      (generated)
# Each part slides a 320x240 window over the picture at its own resolution, in
# whole pixels: nothing is scaled. The window moves in RGB, because cropping
# subsampled chroma would round it to even offsets.
set -eu
cd "$(dirname "$0")"
mkdir -p video

still() { printf '%s' "-loop 1 -framerate 25 -i $1"; }

# shellcheck disable=SC2046
ffmpeg -hide_banner -loglevel error -nostdin -y -threads 1 \
  $(still real/coffee.png) $(still real/cat.png) $(still ai/sd3-2.jpg) \
  -filter_complex "
    [0:v]trim=end_frame=40,setsar=1,format=rgb24,crop=320:240:'80+4*n':'80+n'[a];
    [1:v]trim=end_frame=40,setsar=1,format=rgb24,crop=320:240:'2*n':'20+n'[b];
    [2:v]trim=end_frame=40,setsar=1,format=rgb24,crop=320:240:'64-n':'2*n'[c];
    [a][b][c]concat=n=3:v=1:a=0,
    scale=out_color_matrix=bt601:out_range=tv:flags=accurate_rnd+full_chroma_int,
    format=yuv420p[v]" \
  -map '[v]' -an -r 25 -frames:v 120 \
  -c:v libx264 -preset slow -profile:v high -crf 18 -g 50 -threads 1 \
  -color_range tv -colorspace smpte170m -color_primaries smpte170m -color_trc smpte170m \
  -map_metadata -1 -fflags +bitexact -flags:v +bitexact -movflags +faststart \
  video/pan.mp4
