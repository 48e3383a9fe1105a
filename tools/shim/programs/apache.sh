# Apache: its modules.
# Packages: apache2-bin
set -eu
[ "$1" = run ] || exit 0
modules=/usr/lib/apache2/modules
{
    echo "ServerRoot $PWD"
    echo "ServerName localhost"
    echo "DefaultRuntimeDir $PWD"
    echo "ErrorLog /dev/stderr"
    echo "LoadModule mpm_event_module $modules/mod_mpm_event.so"
    for name in authn_core authz_core authn_file authz_user auth_basic unixd dir mime rewrite ssl socache_shmcb \
        proxy proxy_http lua session session_crypto deflate filter headers http2 xml2enc proxy_html status info \
        autoindex negotiation env setenvif expires dav dav_fs cache cache_disk ldap dbd authn_dbd macro substitute \
        watchdog heartbeat include data ext_filter brotli md; do
        [ ! -f $modules/mod_$name.so ] || echo "LoadModule ${name}_module $modules/mod_$name.so"
    done
} >x.conf
apache2 -f "$PWD/x.conf" -M 2>/dev/null
apache2 -f "$PWD/x.conf" -L 2>/dev/null | grep -c .
apache2 -f "$PWD/x.conf" -t 2>&1 | tail -n 1
