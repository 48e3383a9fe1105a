//! The pictures of the benchmarks show the numbers of their tables, and each way in one colour.

use std::collections::BTreeSet;
use std::fs;

use crate::common::repository;

#[path = "../../benches/harness/figure.rs"]
mod figure;
#[path = "../../benches/harness/plot.rs"]
mod plot;

#[test]
fn pictures_are_those_of_the_tables() {
    let document = fs::read_to_string(repository("benches/README.md")).unwrap();
    for (name, picture) in figure::pictures(&document) {
        let saved = fs::read_to_string(repository("benches").join(name)).unwrap();
        assert!(
            saved == picture,
            "benches/{name}: `cargo bench --bench growth -- --draw` draws it"
        );
        // Dots are of ways alone: those of the legend have all colours, each once.
        let fill =
            |circle: &str| circle.split("fill=").nth(1)?.split('"').nth(1).map(str::to_owned);
        let dots: Vec<String> =
            picture.lines().filter(|line| line.starts_with("<circle")).filter_map(fill).collect();
        let colours: BTreeSet<&String> = dots.iter().collect();
        let legend: BTreeSet<&String> = dots[dots.len() - colours.len()..].iter().collect();
        assert_eq!(legend, colours, "{name}");
    }
}
