# gdk-pixbuf: its loaders.
# Packages: libgdk-pixbuf2.0-bin librsvg2-common
set -eu
if [ "$1" = build ]; then
    printf 'P3\n4 2\n255\n%s\n' "255 0 0 0 255 0 0 0 255 1 2 3 4 5 6 7 8 9 9 9 9 1 1 1" >x.pnm
    printf '#define x_width 8\n#define x_height 2\nstatic char x_bits[] = { 0x0f, 0xf0 };\n' >x.xbm
    printf '/* XPM */\nstatic char *x[] = {"2 2 2 1", "a c red", "b c blue", "ab", "ba"};\n' >x.xpm
    printf '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"><circle cx="9" cy="5" r="4"/></svg>' >x.svg
    printf 'BM\106\000\000\000\000\000\000\000\066\000\000\000\050\000\000\000\002\000\000\000\002\000\000\000\001\000\030\000\000\000\000\000\020\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\001\002\003\004\005\006\000\000\007\010\011\012\013\014\000\000' >x.bmp
    exit 0
fi
/usr/lib/x86_64-linux-gnu/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders
for file in x.pnm x.xbm x.xpm x.svg x.bmp; do
    gdk-pixbuf-thumbnailer -s 16 "$file" out.png && echo "$file: $(cksum <out.png)" || echo "$file: not read"
done
