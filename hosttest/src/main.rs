use std::time::Duration;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let o = hosttest::torture::Options {
        time: Duration::from_secs(a[1].parse().unwrap()),
        asymmetric: a.len() > 2,
        ..Default::default()
    };
    let b = o.asymmetric.then(|| hosttest::membarrier::heavy_barrier().unwrap());
    println!("{}", hosttest::torture::threads::run(&o, b));
}
