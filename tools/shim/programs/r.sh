# R: the packages of its base.
# Packages: r-base-core
set -eu
[ "$1" = run ] || exit 0
cat >x.R <<'END'
for (name in c("methods", "stats", "graphics", "grDevices", "utils", "tools", "parallel", "splines", "grid", "stats4", "compiler"))
    cat(name, suppressWarnings(require(name, character.only = TRUE)), "\n")
set.seed(1)
x <- rnorm(100); y <- 2 * x + rnorm(100)
print(coef(lm(y ~ x)))
print(svd(matrix(1:6, 2))$d); print(solve(matrix(c(2, 1, 1, 3), 2)))
print(optim(c(-1, 1), function(p) sum((p - c(1, 2))^2))$convergence)
print(round(fft(1:4), 3)); print(nls(y ~ a * x, start = list(a = 1)))
print(predict(bs(1:10, df = 4))[3, ]); print(toupper("caf\u00e9")); print(md5sum("x.R") == md5sum("x.R"))
pdf("x.pdf"); plot(x, y); invisible(dev.off()); print(file.exists("x.pdf"))
svg("x.svg"); plot(1:10); invisible(dev.off()); print(file.exists("x.svg"))
png("x.png", type = "cairo"); grid.newpage(); grid.rect(); invisible(dev.off()); print(file.size("x.png") > 0)
print(unlist(mclapply(1:4, function(n) n^2, mc.cores = 2)))
print(tryCatch(dyn.load("none.so"), error = function(e) "an error"))
print(names(getLoadedDLLs())); print(La_library() != "")
print(getNativeSymbolInfo("cor", getLoadedDLLs()[["stats"]])$name); print(is.loaded("none"))
print(memDecompress(memCompress(charToRaw("memory"), "xz"), "xz", asChar = TRUE))
END
Rscript --vanilla x.R 2>&1
