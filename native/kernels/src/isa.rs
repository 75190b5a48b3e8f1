//! Run-time choice of the instruction set.

/// Ordered: a later one includes all earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the compiler's baseline is.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 with BF16 dot products and VNNI.
    Avx512Bf16,
    /// The same with AMX tiles for matrix products of bf16, and of f32 in three bf16 parts.
    Amx,
}

const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

impl Isa {
    /// The best one that this CPU and operating system run.
    pub fn detect() -> Isa {
        ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// All that run here, in rising order.
    pub fn available() -> Vec<Isa> {
        ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The name that settings and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// The one with this name, if it runs here; otherwise the names that do.
    pub fn choose(name: &str) -> Result<Isa, String> {
        let available = Isa::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            format!("must be an instruction set of this machine ({}), got \"{name}\"", names.join(", "))
        })
    }

    /// The CPU has the instructions and the system saves their registers.
    pub fn is_available(self) -> bool {
        x86::runs(self)
    }
}

/// The CPU's brand string, empty where there is none.
pub fn cpu_brand() -> String {
    x86::brand()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Isa;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;

    pub fn runs(isa: Isa) -> bool {
        match isa {
            Isa::Portable => true,
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Isa::Avx512 => {
                runs(Isa::Avx2)
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Isa::Avx512Bf16 => {
                runs(Isa::Avx512) && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni")
            }
            Isa::Amx => {
                static GRANTED: OnceLock<bool> = OnceLock::new();
                runs(Isa::Avx512Bf16) && *GRANTED.get_or_init(|| has_amx() && request_tiles())
            }
        }
    }

    /// cpuid leaf 7: edx bit 22 is AMX-BF16, bit 24 AMX-TILE.
    #[allow(unused_unsafe)] // cpuid is a safe function from Rust 1.94 on
    fn has_amx() -> bool {
        let edx = unsafe { __cpuid_count(7, 0) }.edx;
        edx & (1 << 22) != 0 && edx & (1 << 24) != 0
    }

    /// Linux gives a process the 8 KiB tile state only when asked: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA).
    #[cfg(target_os = "linux")]
    fn request_tiles() -> bool {
        const SYS_ARCH_PRCTL: isize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const XTILEDATA: usize = 18;
        let result: isize;
        // SAFETY: the call reads no memory of ours; `syscall` clobbers rcx and r11.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") SYS_ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn request_tiles() -> bool {
        false
    }

    #[allow(unused_unsafe)]
    pub fn brand() -> String {
        if unsafe { __cpuid(0x8000_0000) }.eax < 0x8000_0004 {
            return String::new();
        }
        let mut bytes = Vec::with_capacity(48);
        for leaf in 0x8000_0002..=0x8000_0004u32 {
            let r = unsafe { __cpuid(leaf) };
            for word in [r.eax, r.ebx, r.ecx, r.edx] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_string()
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    use super::Isa;

    pub fn runs(isa: Isa) -> bool {
        isa == Isa::Portable
    }

    pub fn brand() -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_last_available_and_each_is_found_by_name() {
        let available = Isa::available();
        assert_eq!(Some(&Isa::detect()), available.last());
        for isa in &available {
            assert_eq!(Isa::choose(isa.name()), Ok(*isa));
        }
    }

    #[test]
    fn an_unknown_set_is_refused_with_the_names_that_run_here() {
        let message = Isa::choose("sse9").unwrap_err();
        assert!(message.contains("portable") && message.contains("sse9"), "{message}");
    }
}
