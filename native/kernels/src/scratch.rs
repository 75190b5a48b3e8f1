//! Per-thread scratch memory: taken for the length of a kernel and given back to the thread for the next one.

use memmap2::{Advice, MmapMut};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

const ALIGN: usize = 64;
/// Sizes are rounded up to this.
const GRANULE: usize = 4096;
/// From this size on memory comes straight from the system, in huge pages where it gives them.
const LARGE: usize = 2 << 20;

static TOTAL_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of scratch held by all threads together.
pub fn total_bytes() -> usize {
    TOTAL_BYTES.load(Ordering::Relaxed)
}

enum Memory {
    Heap(NonNull<u8>),
    Pages(MmapMut),
}

struct Block {
    memory: Memory,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Block {}
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize) -> Self {
        let memory = if bytes >= LARGE { Self::pages(bytes) } else { Self::heap(bytes) };
        TOTAL_BYTES.fetch_add(bytes, Ordering::Relaxed);
        Self { memory, bytes }
    }

    fn pages(bytes: usize) -> Memory {
        let map = MmapMut::map_anon(bytes).unwrap_or_else(|error| panic!("scratch: needs {bytes} bytes; {error}"));
        // Only a wish.
        let _ = map.advise(Advice::HugePage);
        Memory::Pages(map)
    }

    fn heap(bytes: usize) -> Memory {
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout(bytes)) });
        Memory::Heap(ptr.unwrap_or_else(|| panic!("scratch: needs {bytes} bytes, the system has none")))
    }

    fn ptr(&self) -> *mut u8 {
        match &self.memory {
            Memory::Heap(ptr) => ptr.as_ptr(),
            Memory::Pages(map) => map.as_ptr().cast_mut(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        TOTAL_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Memory::Heap(ptr) = self.memory {
            // SAFETY: made by `heap` with the same layout.
            unsafe { dealloc(ptr.as_ptr(), layout(self.bytes)) };
        }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGN).expect("scratch size fits the address space")
}

thread_local! {
    static SPARE: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// A plain number type, valid for every bit pattern.
pub trait Pod: Copy {}
impl Pod for u8 {}
impl Pod for u16 {}
impl Pod for u32 {}
impl Pod for i32 {}
impl Pod for f32 {}
impl Pod for f64 {}

/// `len` values of undefined content, aligned to 64 bytes. Dropping it gives the memory back to the thread, so nested
/// and repeated use costs no allocation.
pub struct Scratch<T: Pod> {
    block: Option<Block>,
    len: usize,
    of: PhantomData<T>,
}

// SAFETY: owned plain memory, like a boxed slice.
unsafe impl<T: Pod + Send> Send for Scratch<T> {}
unsafe impl<T: Pod + Sync> Sync for Scratch<T> {}

impl<T: Pod> Scratch<T> {
    pub fn take(len: usize) -> Self {
        let bytes = (len * size_of::<T>()).next_multiple_of(GRANULE).max(GRANULE);
        let block = SPARE.with_borrow_mut(|spare| {
            // The smallest that is large enough; else the largest makes room for a new one.
            let fit = (0..spare.len()).filter(|&i| spare[i].bytes >= bytes).min_by_key(|&i| spare[i].bytes);
            match fit {
                Some(i) => Some(spare.swap_remove(i)),
                None => {
                    if let Some(i) = (0..spare.len()).max_by_key(|&i| spare[i].bytes) {
                        spare.swap_remove(i);
                    }
                    None
                }
            }
        });
        Self { block: Some(block.unwrap_or_else(|| Block::new(bytes))), len, of: PhantomData }
    }

    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.block().ptr().cast()
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("held until drop")
    }
}

impl<T: Pod> std::ops::Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the block holds at least `len` values, was zeroed when made, and is ours alone.
        unsafe { std::slice::from_raw_parts(self.block().ptr().cast(), self.len) }
    }
}

impl<T: Pod> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.block().ptr().cast(), self.len) }
    }
}

impl<T: Pod> Drop for Scratch<T> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            // A thread that is ending has no list any more; then the block is freed here.
            let _ = SPARE.try_with(|spare| spare.borrow_mut().push(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_scratch_is_distinct_and_reused() {
        let first = {
            let mut a = Scratch::<f32>::take(100);
            let mut b = Scratch::<f32>::take(100);
            a.fill(1.0);
            b.fill(2.0);
            assert!(a.iter().all(|&v| v == 1.0));
            assert_eq!(a.as_ptr() as usize % ALIGN, 0);
            a.as_ptr() as usize
        };
        let again = [Scratch::<f32>::take(64), Scratch::<f32>::take(64)];
        assert!(again.iter().any(|s| s.as_ptr() as usize == first));
    }
}
