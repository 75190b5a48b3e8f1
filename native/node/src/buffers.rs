//! The process-wide table of buffers: handles for JavaScript, aligned memory behind them, and a pool for reuse.

use crate::mapping;
use fathom_memory::available_bytes;
use memmap2::{Advice, Mmap, MmapMut};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ALIGN: usize = 64;
/// From this size on memory comes straight from the system, in huge pages where it gives them.
const LARGE: usize = 2 << 20;
/// A handle is slot + generation · 2^20, an exact integer in a float64.
const SLOTS: u64 = 1 << 20;
const GENERATIONS: u64 = 1 << 32;
/// The pool may always hold this much.
const POOL_FLOOR: usize = 64 << 20;

/// Memory with an address of its own.
enum Memory {
    Small { ptr: NonNull<u8>, layout: Layout },
    Large(MmapMut),
    File { map: Arc<Mmap>, start: usize },
}

// SAFETY: plain memory.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeroed memory of `class` bytes, or `None` when the system has none.
    fn new(class: usize) -> Option<Self> {
        if class >= LARGE {
            let map = MmapMut::map_anon(class).ok()?;
            // Only a wish: without huge pages all works, a little slower.
            let _ = map.advise(Advice::HugePage);
            return Some(Memory::Large(map));
        }
        let layout = Layout::from_size_align(class, ALIGN).ok()?;
        // SAFETY: a class is never zero bytes.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(|ptr| Memory::Small { ptr, layout })
    }

    fn ptr(&self) -> *mut u8 {
        match self {
            Memory::Small { ptr, .. } => ptr.as_ptr(),
            Memory::Large(map) => map.as_ptr().cast_mut(),
            Memory::File { map, start } => map.as_ptr().wrapping_add(*start).cast_mut(),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Small { ptr, layout } = self {
            // SAFETY: made with this layout.
            unsafe { dealloc(ptr.as_ptr(), *layout) };
        }
    }
}

/// A live buffer. Calls under way hold it too, so that a free in another thread cannot take it from under them.
pub struct Buffer {
    memory: Option<Memory>,
    ptr: *mut u8,
    bytes: usize,
    writable: bool,
}

// SAFETY: plain memory; that nobody reads what another thread writes is the caller's part.
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new(memory: Memory, bytes: usize, writable: bool) -> Self {
        let ptr = memory.ptr();
        Self { memory: Some(memory), ptr, bytes, writable }
    }

    pub fn ptr(&self) -> *mut u8 {
        self.ptr
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are not those of a file.
    fn own_bytes(&self) -> usize {
        if self.writable { self.bytes } else { 0 }
    }

    /// False for a mapped file.
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory @ (Memory::Small { .. } | Memory::Large(_))) = self.memory.take() {
            lock().keep(memory, self.bytes);
        }
    }
}

struct Slot {
    generation: u64,
    buffer: Option<Arc<Buffer>>,
}

struct Table {
    slots: Vec<Slot>,
    empty: Vec<usize>,
    /// Freed memory by class, each with the number of its freeing, the oldest first.
    pool: BTreeMap<usize, VecDeque<(u64, Memory)>>,
    freed: u64,
    live_bytes: usize,
    peak_bytes: usize,
    pooled_bytes: usize,
    live_buffers: usize,
}

pub struct Stats {
    pub live_bytes: usize,
    pub peak_bytes: usize,
    pub pooled_bytes: usize,
    pub live_buffers: usize,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    slots: Vec::new(),
    empty: Vec::new(),
    pool: BTreeMap::new(),
    freed: 0,
    live_bytes: 0,
    peak_bytes: 0,
    pooled_bytes: 0,
    live_buffers: 0,
});

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sizes that share memory: all that fill the same cache lines, or for large ones the same pages.
fn class_of(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(if bytes < 1 << 16 { ALIGN } else { 4096 })
}

/// Why there is no buffer.
pub enum Refusal {
    Memory,
    Handles,
}

/// A new buffer, content undefined.
pub fn alloc(bytes: usize) -> Result<f64, Refusal> {
    let class = class_of(bytes);
    let mut table = lock();
    table.check_handles()?;
    let memory = match table.reuse(class) {
        Some(memory) => memory,
        None => {
            if class >= LARGE {
                table.check_room(class)?;
            }
            let fresh = Memory::new(class).or_else(|| {
                table.drain_pool();
                Memory::new(class)
            });
            fresh.ok_or(Refusal::Memory)?
        }
    };
    Ok(table.insert(Buffer::new(memory, bytes, true)))
}

/// A read-only window of a file; `UnexpectedEof` when the file ends before it does.
pub fn map_file(path: &str, offset: u64, bytes: usize) -> std::io::Result<f64> {
    let map = mapping::of_file(path, offset, bytes as u64)?;
    let mut table = lock();
    table.check_handles().map_err(|_| std::io::Error::other("too many buffers"))?;
    Ok(table.insert(Buffer::new(Memory::File { map, start: offset as usize }, bytes, false)))
}

/// Forgets a handle; its memory goes to the pool once no call uses it.
pub fn free(handle: f64) -> Result<(), String> {
    let mut table = lock();
    let slot = table.slot(handle)?;
    let entry = &mut table.slots[slot];
    let buffer = entry.buffer.take();
    entry.generation = (entry.generation + 1) % GENERATIONS;
    table.empty.push(slot);
    table.live_buffers -= 1;
    table.live_bytes -= buffer.as_ref().map_or(0, |buffer| buffer.own_bytes());
    // The buffer's drop takes the lock itself.
    drop(table);
    drop(buffer);
    Ok(())
}

pub fn get(handle: f64) -> Result<Arc<Buffer>, String> {
    let table = lock();
    let slot = table.slot(handle)?;
    table.slots[slot].buffer.clone().ok_or_else(|| dead(handle))
}

pub fn stats() -> Stats {
    let t = lock();
    Stats {
        live_bytes: t.live_bytes,
        peak_bytes: t.peak_bytes,
        pooled_bytes: t.pooled_bytes,
        live_buffers: t.live_buffers,
    }
}

pub fn reset_peak() {
    let mut table = lock();
    table.peak_bytes = table.live_bytes;
}

fn dead(handle: f64) -> String {
    format!("buffer: the handle must be live, got {handle}")
}

impl Table {
    fn slot(&self, handle: f64) -> Result<usize, String> {
        let number = handle as u64;
        let (slot, generation) = ((number % SLOTS) as usize, number / SLOTS);
        let live = number as f64 == handle
            && self.slots.get(slot).is_some_and(|s| s.generation == generation && s.buffer.is_some());
        if live { Ok(slot) } else { Err(dead(handle)) }
    }

    fn check_handles(&self) -> Result<(), Refusal> {
        let free = !self.empty.is_empty() || (self.slots.len() as u64) < SLOTS;
        if free { Ok(()) } else { Err(Refusal::Handles) }
    }

    /// After `check_handles`.
    fn insert(&mut self, buffer: Buffer) -> f64 {
        self.live_bytes += buffer.own_bytes();
        self.live_buffers += 1;
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        let slot = self.empty.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, buffer: None });
            self.slots.len() - 1
        });
        let entry = &mut self.slots[slot];
        // Generation 0 is never given out: handle 0 stands for no operand.
        entry.generation = entry.generation.max(1);
        entry.buffer = Some(Arc::new(buffer));
        (slot as u64 + entry.generation * SLOTS) as f64
    }

    fn reuse(&mut self, class: usize) -> Option<Memory> {
        let (_, memory) = self.pool.get_mut(&class)?.pop_back()?;
        self.pooled_bytes -= class;
        Some(memory)
    }

    /// Puts memory into the pool; what goes beyond the largest amount that was live at a time leaves it, oldest first.
    fn keep(&mut self, memory: Memory, bytes: usize) {
        let class = class_of(bytes);
        self.freed += 1;
        self.pool.entry(class).or_default().push_back((self.freed, memory));
        self.pooled_bytes += class;
        while self.live_bytes + self.pooled_bytes > self.peak_bytes.max(POOL_FLOOR) / 4 * 5 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let age = |(_, freed): &(&usize, &VecDeque<(u64, Memory)>)| freed.front().map(|(number, _)| *number);
        let oldest = self.pool.iter().filter(|(_, freed)| !freed.is_empty()).min_by_key(age).map(|(class, _)| *class);
        let Some(class) = oldest else { return };
        if let Some(list) = self.pool.get_mut(&class) {
            list.pop_front();
            self.pooled_bytes -= class;
            if list.is_empty() {
                self.pool.remove(&class);
            }
        }
    }

    fn drain_pool(&mut self) {
        self.pool.clear();
        self.pooled_bytes = 0;
    }

    /// Linux promises more than it has and kills who uses it; so large wishes are checked first.
    fn check_room(&mut self, class: usize) -> Result<(), Refusal> {
        if class > available_bytes() {
            self.drain_pool();
        }
        if class > available_bytes() { Err(Refusal::Memory) } else { Ok(()) }
    }
}
