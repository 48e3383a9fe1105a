# OpenSSL: its legacy provider.
# Packages: openssl
set -eu
[ "$1" = run ] || exit 0
openssl list -providers -provider legacy -provider default
for digest in md4 whirlpool ripemd160; do
    echo memory | openssl dgst -provider legacy -provider default -"$digest"
done
for cipher in rc4 bf-cbc cast5-cbc des-cbc idea-cbc seed-cbc rc2-cbc; do
    echo memory | openssl enc -"$cipher" -provider legacy -provider default -K 0123456789abcdef0123456789abcdef \
        -iv 0123456789abcdef 2>/dev/null | openssl base64
done
openssl kdf -provider legacy -provider default -keylen 16 -kdfopt pass:x -kdfopt salt:y -kdfopt digest:SHA1 \
    -kdfopt iter:1 PBKDF1 || echo "no PBKDF1"
openssl list -providers -provider none 2>&1 | sed 's/^[0-9A-F]*://'
