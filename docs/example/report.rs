// What `memdl::inspect` says of `libexample.so`.
memdl::inspect(&include!("bytes.rs"))
