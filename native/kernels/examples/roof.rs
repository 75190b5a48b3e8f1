fn main() {
    for t in [1, 2] {
        println!("{:?}", fathom_kernels::roof::measure(t));
    }
}
