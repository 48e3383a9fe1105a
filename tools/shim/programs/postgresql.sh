# PostgreSQL: in single-user mode, with its extensions.
# Packages: postgresql-15 postgresql-contrib
set -eu
bin=/usr/lib/postgresql/15/bin
# It does not run as root.
if [ "$1" = build ]; then
    chown postgres .
    su postgres -s /bin/sh -c "$bin/initdb -D data -A trust -N --no-instructions -E UTF8 --locale=C.UTF-8" >/dev/null
    exit 0
fi
[ "$(id -u)" != 0 ] || {
    chown -R postgres .
    exec setpriv --reuid postgres --regid postgres --clear-groups sh "$0" run
}
for extension in plpgsql hstore pgcrypto pg_trgm citext ltree btree_gist btree_gin cube earthdistance fuzzystrmatch \
    intarray isn lo pageinspect pg_buffercache pgrowlocks pgstattuple seg tablefunc tcn tsm_system_rows unaccent \
    uuid-ossp xml2 dict_int dict_xsyn bloom amcheck; do
    echo "create extension if not exists \"$extension\";"
done >x.sql
cat >>x.sql <<'END'
select 'a=>1,b=>2'::hstore -> 'b';
select encode(digest('x', 'sha256'), 'hex'), similarity('memory', 'memories'), 'A'::citext = 'a'::citext;
select levenshtein('a', 'bc'), metaphone('memory', 4), 'a.b.c'::ltree <@ 'a'::ltree, unaccent('Hotel'), uuid_generate_v5(uuid_ns_dns(), 'x');
select xpath_string('<a><b>1</b></a>', '/a/b'), isn_weak(), '{1,2}'::int[] & '{2,3}'::int[], cube(1, 2);
create function f(n int) returns int as $$ begin if n < 2 then return 1; end if; return n * f(n - 1); end $$ language plpgsql;
select f(10);
create function g() returns int as $$ begin return 1 / 0; exception when division_by_zero then return 42; end $$ language plpgsql;
select g();
select 1 / 0;
select count(*) from (select crypt('x', gen_salt('bf', 4)) from generate_series(1, 3)) t;
create function none() returns int as '/none/none.so', 'f' language c;
END
$bin/postgres --single -j -D data -c log_timezone=UTC -c log_line_prefix= postgres <<END 2>x.log
grep -E 'ERROR|FATAL|PANIC|WARNING' x.log
$(sed 's/$/\n/' x.sql)
END
