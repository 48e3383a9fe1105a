//! Rules of the source text, the documents, and the cost of a load. Loads no image in this process.

#[path = "../common/mod.rs"]
mod common;

mod documents;
mod examples;
mod instructions;
mod layers;
mod pages;
mod pictures;
mod tidy;
mod unsupported;
