//! The addon: handles and safety only. Each export turns a panic into an exception; meaning lives in TypeScript.

mod buffers;
mod call;
mod dispatch;
mod engine;
mod mapping;
mod tokenizer;

use buffers::Refusal;
use fathom_kernels::{Ctx, Isa, isa, roof, scratch};
use napi::bindgen_prelude::{Env, Uint8ArraySlice};
use napi::{Error, Status};
use napi_derive::napi;
use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

type Result<T> = napi::Result<T>;

/// Largest window that one read or write copies.
const MOST_WINDOW: usize = 64 << 20;

fn failure(text: impl Into<String>) -> Error {
    Error::new(Status::GenericFailure, text.into())
}

/// Runs `work`; a panic becomes an error with its text, and is not printed.
fn guarded<T>(work: impl FnOnce() -> std::result::Result<T, String>) -> Result<T> {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(failure),
        Err(panic) => Err(failure(text_of(&*panic))),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("kernel: {}", text.unwrap_or("a panic without text"))
}

fn whole(name: &str, value: f64) -> std::result::Result<usize, String> {
    let fits = (0.0..=9_007_199_254_740_991.0).contains(&value) && value.fract() == 0.0;
    if fits { Ok(value as usize) } else { Err(format!("{name}: must be an integer of at least 0, got {value}")) }
}

/// The handle of a new buffer; 0 when the memory cannot be had.
#[napi]
pub fn alloc(bytes: f64) -> Result<f64> {
    guarded(|| match buffers::alloc(whole("alloc", bytes)?) {
        Ok(handle) => Ok(handle),
        Err(Refusal::Memory) => Ok(0.0),
        Err(Refusal::Handles) => Err("alloc: too many live buffers; free some".to_string()),
    })
}

/// Bytes that a new buffer could take now.
#[napi]
pub fn available_bytes() -> f64 {
    fathom_memory::available_bytes() as f64
}

/// The handle of a read-only window of a file; null when the file ends before it does.
#[napi]
pub fn map_file(path: String, byte_offset: f64, byte_length: f64) -> Result<Option<f64>> {
    guarded(|| {
        let (offset, length) = (whole("mapFile", byte_offset)?, whole("mapFile", byte_length)?);
        match buffers::map_file(&path, offset as u64, length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            found => found.map(Some).map_err(|error| error.to_string()),
        }
    })
}

#[napi]
pub fn free(handle: f64) -> Result<()> {
    guarded(|| buffers::free(handle))
}

/// The checked address of a window of a buffer.
fn window(
    place: &str,
    handle: f64,
    byte_offset: f64,
    length: usize,
) -> std::result::Result<(*mut u8, std::sync::Arc<buffers::Buffer>), String> {
    let buffer = buffers::get(handle)?;
    let offset = whole(place, byte_offset)?;
    if length > MOST_WINDOW {
        return Err(format!("{place}: at most {MOST_WINDOW} bytes at a time, got {length}"));
    }
    if offset.checked_add(length).is_none_or(|end| end > buffer.bytes()) {
        let bytes = buffer.bytes();
        return Err(format!("{place}: must stay within the buffer of {bytes} bytes, got {length} from {offset} on"));
    }
    Ok((buffer.ptr().wrapping_add(offset), buffer))
}

#[napi]
pub fn write(handle: f64, byte_offset: f64, data: &[u8]) -> Result<()> {
    guarded(|| {
        let (to, buffer) = window("write", handle, byte_offset, data.len())?;
        if !buffer.is_writable() {
            return Err("write: the buffer must not be a mapped file".to_string());
        }
        // SAFETY: the window is inside a live buffer, which JavaScript cannot see as an array.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        Ok(())
    })
}

/// A copy of a window.
#[napi]
pub fn read<'env>(env: &'env Env, handle: f64, byte_offset: f64, length: f64) -> Result<Uint8ArraySlice<'env>> {
    let length = guarded(|| whole("read", length))?;
    let (from, _buffer) = guarded(|| window("read", handle, byte_offset, length))?;
    // SAFETY: the window is inside a buffer that is held until the copy is made.
    Uint8ArraySlice::copy_from(env, unsafe { std::slice::from_raw_parts(from, length) })
}

/// Runs a list of encoded calls on an engine.
#[napi]
pub fn run(engine: u32, words: &[f64]) -> Result<()> {
    guarded(|| {
        let engine = engine::get(engine)?;
        dispatch::run(Ctx { isa: engine.isa, pool: &engine.pool }, words)
    })
}

#[napi(object)]
pub struct EngineInfo {
    pub id: u32,
    pub isa: String,
    pub threads: u32,
}

/// Opens the engine with this instruction set and so many threads.
#[napi]
pub fn open_engine(isa: Option<String>, threads: Option<u32>) -> Result<EngineInfo> {
    guarded(|| {
        let id = engine::open(isa.as_deref(), threads)? as u32;
        let engine = engine::get(id)?;
        Ok(EngineInfo { id, isa: engine.isa.name().to_string(), threads: engine.pool.threads() as u32 })
    })
}

#[napi(object)]
pub struct Machine {
    pub cpu: String,
    pub cores: u32,
    /// Instruction sets that run here, the best last.
    pub isas: Vec<String>,
}

#[napi]
pub fn machine() -> Machine {
    let isas = Isa::available().into_iter().map(|isa| isa.name().to_string()).collect();
    Machine { cpu: isa::cpu_brand(), cores: engine::cores() as u32, isas }
}

#[napi(object)]
pub struct MemoryStats {
    pub live_bytes: f64,
    pub peak_bytes: f64,
    pub pooled_bytes: f64,
    pub scratch_bytes: f64,
    pub live_buffers: f64,
}

#[napi]
pub fn stats() -> MemoryStats {
    let stats = buffers::stats();
    MemoryStats {
        live_bytes: stats.live_bytes as f64,
        peak_bytes: stats.peak_bytes as f64,
        pooled_bytes: stats.pooled_bytes as f64,
        scratch_bytes: scratch::total_bytes() as f64,
        live_buffers: stats.live_buffers as f64,
    }
}

#[napi]
pub fn reset_peak() {
    buffers::reset_peak();
}

#[napi(object)]
pub struct KernelRow {
    pub op: u32,
    pub name: String,
    pub operands: u32,
    pub numbers: u32,
}

/// The kernels that `run` knows, to be compared with the contract.
#[napi]
pub fn kernel_table() -> Vec<KernelRow> {
    let row = |k: &dispatch::Kernel| KernelRow {
        op: k.op,
        name: k.name.to_string(),
        operands: k.operands as u32,
        numbers: k.numbers as u32,
    };
    dispatch::KERNELS.iter().map(row).collect()
}

#[napi(object)]
pub struct Peaks {
    pub f32_flops: f64,
    pub bf16_flops: f64,
}

/// Multiply-adds per second that so many threads reach at best; bf16 on the fastest unit, 0 without one.
#[napi]
pub fn measure_peaks(threads: u32) -> Result<Peaks> {
    guarded(|| {
        let peaks = roof::measure_peaks(threads.max(1) as usize);
        Ok(Peaks { f32_flops: peaks.f32_flops, bf16_flops: peaks.bf16_flops.max(peaks.amx_flops) })
    })
}

#[napi(object)]
pub struct RoofRow {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub percent_of_peak: Option<f64>,
    pub peak: Option<String>,
}

/// The measured best of this machine and what the matrix products reach of it. Takes some seconds.
#[napi]
pub fn measure_roof(threads: u32) -> Result<Vec<RoofRow>> {
    guarded(|| {
        let row = |r: roof::Row| RoofRow {
            name: r.name,
            value: r.value,
            unit: r.unit.to_string(),
            percent_of_peak: r.percent_of_peak,
            peak: r.peak.map(str::to_string),
        };
        Ok(roof::measure(Isa::detect(), threads.max(1) as usize).into_iter().map(row).collect())
    })
}
