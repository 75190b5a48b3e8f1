//! Prints the measured roof and the speed of the matrix products: `roof [ISA] [THREADS]…`, by default of every
//! instruction set on one and on all threads.

use fathom_kernels::{Isa, roof};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let isas: Vec<Isa> =
        Isa::available().into_iter().filter(|isa| args.iter().all(|a| !is_isa(a) || a == isa.name())).collect();
    let mut threads: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    if threads.is_empty() {
        threads = vec![1, std::thread::available_parallelism().map_or(1, usize::from)];
    }
    for isa in isas {
        for &threads in &threads {
            println!("{} on {threads} threads", isa.name());
            for row in roof::measure(isa, threads) {
                let share = row
                    .percent_of_peak
                    .zip(row.peak)
                    .map_or(String::new(), |(share, of)| format!("  {share:.0} % of {of}"));
                println!("  {:<48} {:>9.1} {}{share}", row.name, row.value, row.unit);
            }
        }
    }
}

fn is_isa(arg: &str) -> bool {
    arg.parse::<usize>().is_err()
}
