//! Engines: an instruction set and a pool. Pools are shared, so that all engines of a size use the same threads.

use fathom_kernels::{Isa, Pool};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone)]
pub struct Engine {
    pub isa: Isa,
    pub pool: Arc<Pool>,
}

static ENGINES: Mutex<Vec<Engine>> = Mutex::new(Vec::new());

/// The number of the engine with this instruction set (default: the best) and so many threads (default: all cores).
pub fn open(isa: Option<&str>, threads: Option<u32>) -> Result<usize, String> {
    let isa = match isa {
        Some(name) => Isa::choose(name).map_err(|rule| format!("isa: {rule}"))?,
        None => Isa::detect(),
    };
    let threads = match threads {
        Some(0) => return Err("threads: must be at least 1, got 0".to_string()),
        Some(threads) => threads as usize,
        None => cores(),
    };
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(i) = engines.iter().position(|e| e.isa == isa && e.pool.threads() == threads) {
        return Ok(i);
    }
    let shared = engines.iter().find(|e| e.pool.threads() == threads).map(|e| e.pool.clone());
    let pool = shared.unwrap_or_else(|| Arc::new(Pool::new(threads)));
    engines.push(Engine { isa, pool });
    Ok(engines.len() - 1)
}

pub fn get(number: u32) -> Result<Engine, String> {
    let engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.get(number as usize).cloned().ok_or_else(|| format!("engine: must be open, got {number}"))
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
