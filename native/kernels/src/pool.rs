//! One pool of threads, sized to the cores.
//!
//! Threads claim chunks from a counter; the caller takes part. Chunks are numbered by shape alone, so bits never depend
//! on the number of threads. A thread that the system has put aside holds up nothing but a chunk it had begun.

use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle thread watches for work before it sleeps. Longer than the gaps between the kernels of a step: waking
/// a sleeping thread costs some 20 µs, and several times that on a virtual machine whose core has gone idle.
const WATCH: Duration = Duration::from_micros(200);
/// After this long it watches by giving its core to whoever else is waiting for one.
const SPIN: Duration = Duration::from_micros(20);

type Panic = Box<dyn Any + Send>;

/// A fixed set of threads, of which the caller of [`Pool::run`] is one.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose job is running.
    turn: Mutex<()>,
}

/// The job in hand. `claim` holds the job's number in the high half and the next chunk in the low half: who advances it
/// with the number he read owns that chunk, and the fields he read before belong to that job.
struct Shared {
    claim: AtomicU64,
    chunks: AtomicUsize,
    work: [AtomicUsize; 2],
    finished: AtomicUsize,
    panic: Mutex<Option<Panic>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    /// Wakes threads without work.
    start: Condvar,
    /// Wakes the caller.
    done: Condvar,
}

thread_local! {
    /// This thread is inside a chunk.
    static IN_CHUNK: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; at least one.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            claim: AtomicU64::new(0),
            chunks: AtomicUsize::new(0),
            work: [AtomicUsize::new(0), AtomicUsize::new(0)],
            finished: AtomicUsize::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            start: Condvar::new(),
            done: Condvar::new(),
        });
        let workers = (1..threads)
            .map_while(|i| {
                let shared = shared.clone();
                std::thread::Builder::new().name(format!("fathom-{i}")).spawn(move || shared.serve()).ok()
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(chunk)` once for every chunk in `0..chunks` and returns when all are done. A panic in a chunk is
    /// raised again here once the others are done. Inside a chunk, or while another thread's job is running, the chunks run
    /// one after the other on the calling thread.
    pub fn run(&self, chunks: usize, work: &(dyn Fn(usize) + Sync)) {
        assert!(chunks <= u32::MAX as usize, "a job has at most 2^32 - 1 chunks");
        let alone = chunks <= 1 || self.workers.is_empty() || IN_CHUNK.get();
        let turn = if alone { None } else { self.turn.try_lock().ok() };
        let Some(turn) = turn else {
            return (0..chunks).for_each(work);
        };
        self.shared.publish(chunks, work);
        self.shared.take_chunks();
        self.shared.wait_finished(chunks);
        let panic = guard(&self.shared.panic).take();
        if let Some(panic) = panic {
            drop(turn);
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _lock = guard(&self.shared.lock);
            self.shared.stop.store(true, SeqCst);
            self.shared.start.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn publish(&self, chunks: usize, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: a fat pointer is two words. It is used only by owners of a chunk, and `run` outlives those.
        let words: [usize; 2] = unsafe { std::mem::transmute(work) };
        let number = self.claim.load(Relaxed) >> 32;
        // Between two jobs the counter stands at its end, so that nobody can claim while the fields change.
        self.finished.store(0, Relaxed);
        self.chunks.store(0, SeqCst);
        self.work[0].store(words[0], SeqCst);
        self.work[1].store(words[1], SeqCst);
        self.claim.store((number + 1) << 32, SeqCst);
        self.chunks.store(chunks, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            let _lock = guard(&self.lock);
            self.start.notify_all();
        }
    }

    /// Claims and runs chunks until none is left.
    fn take_chunks(&self) {
        loop {
            let claim = self.claim.load(SeqCst);
            let chunk = claim as u32 as usize;
            let words = [self.work[0].load(SeqCst), self.work[1].load(SeqCst)];
            let chunks = self.chunks.load(SeqCst);
            if chunk >= chunks {
                return;
            }
            if self.claim.compare_exchange(claim, claim + 1, AcqRel, Relaxed).is_err() {
                continue;
            }
            // SAFETY: the claim succeeded, so `words` is the work of the job that is waiting for this chunk.
            let work: &(dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(words) };
            IN_CHUNK.set(true);
            let result = catch_unwind(AssertUnwindSafe(|| work(chunk)));
            IN_CHUNK.set(false);
            if let Err(panic) = result {
                guard(&self.panic).get_or_insert(panic);
            }
            if self.finished.fetch_add(1, AcqRel) + 1 == chunks {
                let _lock = guard(&self.lock);
                self.done.notify_all();
            }
        }
    }

    fn wait_finished(&self, chunks: usize) {
        if watch_until(|| self.finished.load(Acquire) == chunks) {
            return;
        }
        let mut lock = guard(&self.lock);
        while self.finished.load(Acquire) != chunks {
            lock = self.done.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of a worker.
    fn serve(&self) {
        loop {
            self.take_chunks();
            let ready = || self.has_work() || self.stop.load(Relaxed);
            if !watch_until(ready) {
                let mut lock = guard(&self.lock);
                self.sleepers.fetch_add(1, SeqCst);
                while !ready() {
                    lock = self.start.wait(lock).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, SeqCst);
            }
            if self.stop.load(Relaxed) {
                return;
            }
        }
    }

    fn has_work(&self) -> bool {
        (self.claim.load(SeqCst) as u32 as usize) < self.chunks.load(SeqCst)
    }
}

/// Watches for up to [`WATCH`]; true when `ready` came true.
fn watch_until(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            spin_loop();
        }
        let waited = start.elapsed();
        if waited > WATCH {
            return false;
        }
        if waited > SPIN {
            std::thread::yield_now();
        }
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        let pool = Pool::new(3);
        for chunks in [0, 1, 2, 7, 1000] {
            let counts: Vec<_> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(chunks, &|i| {
                counts[i].fetch_add(1, Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_is_raised_on_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let ran = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|i| {
                ran.fetch_add(1, Relaxed);
                assert!(i != 5, "chunk five");
            })
        }));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"chunk five"));
        assert_eq!(ran.load(Relaxed), 64);
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, Relaxed);
        });
        assert_eq!(sum.load(Relaxed), 45);
    }

    #[test]
    fn a_nested_run_executes_on_its_own_thread() {
        let pool = Pool::new(2);
        let inner = AtomicUsize::new(0);
        pool.run(8, &|_| {
            let outer = std::thread::current().id();
            pool.run(8, &|_| {
                assert_eq!(std::thread::current().id(), outer);
                inner.fetch_add(1, Relaxed);
            });
        });
        assert_eq!(inner.load(Relaxed), 64);
    }

    #[test]
    fn callers_on_several_threads_all_finish() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        pool.run(5, &|_| {
                            total.fetch_add(1, Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Relaxed), 3 * 2000 * 5);
    }
}
