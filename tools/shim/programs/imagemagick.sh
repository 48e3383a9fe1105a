# ImageMagick: its coders.
# Packages: imagemagick
set -eu
[ "$1" = run ] || exit 0
convert -list format | grep -c .
convert -list coder | grep -c .
for format in png jpg gif tiff webp bmp ico pnm tga xpm xbm pcx psd miff sgi sun dds hdr jp2 jxl heic pdf eps \
    fits dpx cin mat palm pict rgb yuv uyvy viff wbmp xwd txt html json info inline braille; do
    convert rose: -depth 8 +set date:create +set date:modify "x.$format" 2>/dev/null || { echo "$format: not written"; continue; }
    case $format in
    pdf | eps | miff | html | json | info | fits | heic | mat) echo "$format: written" ;;
    *) echo "$format: $(cksum <"x.$format")" ;;
    esac
    convert "x.$format" -resize 32x32! -format '%w %h %m\n' info: 2>/dev/null || echo "$format: not read"
done
convert -size 200x60 xc:white -pointsize 24 -draw "text 10,40 'memory'" -blur 0x1 -rotate 10 rgb:- | cksum
convert plasma:none none.png 2>/dev/null || echo refused
