# Makes man pages from include/memdl.h: one for each comment with the declarations below it, and memdl.3 from the
# comment at its head. A page is called as the first thing that is declared; further names refer to it.
#
#     awk -v folder=DIR -v version=0.1.0 -f dist/man.awk include/memdl.h

# Text for roff.
function escaped(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    gsub(/'/, "\\(aq", text)
    if (text ~ /^\./) text = "\\&" text
    return text
}

function emit(line) { print line > page }

# A line of a comment. Indented lines are examples; a blank one begins a paragraph.
function body(line) {
    if (line ~ /^    /) {
        if (!in_example) emit(".PP\n.nf\n.RS 4")
        in_example = 1
        emit(escaped(substr(line, 5)))
        return
    }
    if (in_example) emit(".RE\n.fi")
    in_example = 0
    emit(line == "" ? ".PP" : escaped(line))
}

function open_page(name, title) {
    page = folder "/" name ".3"
    emit(".\\\" Made from memdl.h.")
    emit(".TH \"" toupper(name) "\" 3 \"\" \"memdl " version "\" \"memdl\"")
    emit(".SH NAME")
    emit(title)
}

function first_sentence(text) {
    if (match(text, /[.:;]( |$)/)) text = substr(text, 1, RSTART - 1)
    return text
}

# The names that a declaration declares: functions and types.
function names_in(text, list,   count, name) {
    count = 0
    if (text ~ /^typedef/) {
        name = text
        if (match(name, /\(\*memdl_[a-z_]+\)/)) list[++count] = substr(name, RSTART + 2, RLENGTH - 3)
        else if (match(name, /memdl_[a-z_]+;[^;]*$/)) {
            name = substr(name, RSTART)
            sub(/;.*/, "", name)
            list[++count] = name
        }
        if (count && text !~ /}/ ) return count
        if (count) {
            # Functions may follow the type, as in `typedef enum ... memdl_scope; int memdl_options_set_scope(...)`.
            sub(/^typedef[^}]*}[^;]*;/, "", text)
        }
    }
    while (match(text, /memdl_[a-z_0-9]+\(/)) {
        name = substr(text, RSTART, RLENGTH - 1)
        if (substr(text, RSTART - 2, 2) != "(*") list[++count] = name
        # Past the arguments, in which callbacks have names, too.
        text = substr(text, RSTART + RLENGTH)
        sub(/^[^;]*;/, "", text)
    }
    return count
}

function finish(   i, count, joined, title) {
    if (declaration == "" || comment_lines == 0) {
        comment_lines = 0
        declaration = ""
        return
    }
    joined = declaration
    gsub(/\/\*[^*]*\*\//, " ", joined)
    gsub(/[ \n]+/, " ", joined)
    delete list
    count = names_in(joined, list)
    if (count) {
        title = ""
        for (i = 1; i <= comment_lines; i++) title = title (i > 1 ? " " : "") comment[i]
        joined = list[1]
        for (i = 2; i <= count; i++) joined = joined ", " list[i]
        open_page(list[1], escaped(joined) " \\- " escaped(first_sentence(title)))
        emit(".SH SYNOPSIS\n.nf\n.B #include <memdl.h>\n.PP")
        n = split(declaration, lines, "\n")
        for (i = 1; i <= n; i++) if (lines[i] != "") emit(escaped(lines[i]))
        emit(".fi\n.SH DESCRIPTION")
        in_example = 0
        for (i = 1; i <= comment_lines; i++) body(comment[i])
        if (in_example) emit(".RE\n.fi")
        emit(".SH SEE ALSO\n.BR memdl (3)")
        close(page)
        for (i = 2; i <= count; i++) {
            page = folder "/" list[i] ".3"
            emit(".so man3/" list[1] ".3")
            close(page)
        }
    }
    comment_lines = 0
    declaration = ""
}

# The comment at the head of the file.
NR == 1 { in_head = 1 }
in_head {
    line = $0
    is_last = line ~ /\*\/$/
    sub(/^\/\* /, "", line)
    sub(/^ \*\/$/, "", line)
    sub(/^ \* ?/, "", line)
    if (NR == 1) {
        open_page("memdl", "memdl \\- run a shared library from bytes in memory")
        emit(".SH SYNOPSIS\n.nf\n.B #include <memdl.h>\n.PP\n.B cc host.c $(pkg\\-config \\-\\-cflags \\-\\-libs memdl)\n.fi\n.SH DESCRIPTION")
    }
    if (!is_last) body(line)
    else {
        in_head = 0
        if (in_example) emit(".RE\n.fi")
        emit(".SH SEE ALSO\n.BR memdl_open (3),\n.BR memdl_options_new (3),\n.BR memdl_error (3),\n.BR dlopen (3)")
        close(page)
    }
    next
}

/^#/ || /^extern "C"/ || /^}$/ { finish(); next }

# A comment that is not within a declaration begins a block; one of a single line may be a heading.
declaration == "" && /^\/\* ----/ { next }
declaration == "" && /^\/\*/ { comment_lines = 0; in_comment = 1 }
in_comment {
    line = $0
    is_last = line ~ /\*\/$/
    sub(/^\/\* /, "", line)
    sub(/^ \* ?/, "", line)
    sub(/ *\*\/$/, "", line)
    comment[++comment_lines] = line
    if (is_last) in_comment = 0
    next
}
/^$/ { finish(); next }
{ declaration = declaration (declaration == "" ? "" : "\n") $0 }
END { finish() }
