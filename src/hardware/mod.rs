//! What this machine has for models to run on, and which of several models suits it.
//!
//! [`Hardware::look`] asks the machine; [`recommend()`] is pure, so that it can be tried on machines nobody here has.

mod recommend;

use std::fmt;

use nvml_wrapper::Nvml;
use serde::Serialize;
use sysinfo::System;

pub use self::recommend::{Candidate, Fit, Recommendation, recommend, rule_of_thumb_kv_bytes};

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// Bytes of a gibibyte.
const GIB: u64 = 1024 * 1024 * 1024;

/// A graphics processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// What its driver calls it.
    pub name: String,
    /// Bytes of memory of its own.
    pub vram_total: u64,
    /// Bytes of it that nobody uses now.
    pub vram_free: u64,
}

/// A machine, as far as models care.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Hardware {
    /// Bytes of memory, or of the part of it this process may use (a container's limit).
    pub memory_total: u64,
    /// Bytes of it that can be had now.
    pub memory_available: u64,
    /// Cores this process may use.
    pub cores: usize,
    /// Instructions that make inference on the CPU fast, by their usual names.
    pub cpu_features: Vec<&'static str>,
    /// NVIDIA's processors. Others are not seen.
    pub gpus: Vec<Gpu>,
}

impl Hardware {
    /// This machine. Takes some milliseconds, in which the thread is blocked: the graphics driver is asked. Without a
    /// driver there are no graphics processors, which is no error.
    pub fn look() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        let (mut total, mut available) = (system.total_memory(), system.available_memory());
        // A container's share is what its processes are killed for exceeding.
        if let Some(limits) = system.cgroup_limits().filter(|limits| limits.total_memory > 0) {
            total = total.min(limits.total_memory);
            available = available.min(limits.free_memory);
        }
        Self {
            memory_total: total,
            memory_available: available,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_features: cpu_features(),
            gpus: gpus(),
        }
    }
}

impl fmt::Display for Hardware {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, available) = (Gibibytes(self.memory_total), Gibibytes(self.memory_available));
        let cores = if self.cores == 1 { "core" } else { "cores" };
        write!(f, "{total} of memory ({available} available), {} {cores}", self.cores)?;
        if !self.cpu_features.is_empty() {
            write!(f, " ({})", self.cpu_features.join(", "))?;
        }
        if self.gpus.is_empty() {
            return f.write_str(", no NVIDIA GPU");
        }
        for Gpu { name, vram_total, vram_free } in &self.gpus {
            write!(f, ", {name} with {} ({} free)", Gibibytes(*vram_total), Gibibytes(*vram_free))?;
        }
        Ok(())
    }
}

/// Bytes as people read them: in gibibytes, and below one in mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gibibytes(pub u64);

impl fmt::Display for Gibibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < GIB {
            return write!(f, "{} MiB", self.0.div_ceil(MIB));
        }
        let tenths = (u128::from(self.0) * 10).div_ceil(u128::from(GIB));
        write!(f, "{}.{} GiB", tenths / 10, tenths % 10)
    }
}

/// What the graphics driver tells through NVML. Its library is looked up when the program runs: it is there with the driver.
fn gpus() -> Vec<Gpu> {
    let Ok(nvml) = Nvml::init() else { return Vec::new() };
    let one = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok()?;
        let name = device.name().unwrap_or_else(|_| "NVIDIA GPU".into());
        Some(Gpu { name, vram_total: memory.total, vram_free: memory.free })
    };
    (0..nvml.device_count().unwrap_or_default()).filter_map(one).collect()
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let seen = [
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
    ];
    seen.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    let seen = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    seen.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_a_core() {
        let here = Hardware::look();
        assert!(here.memory_total > 0 && here.memory_available <= here.memory_total && here.cores > 0, "{here:?}");
        assert!(here.to_string().contains("GiB of memory"), "{here}");
    }

    #[test]
    fn a_machine_is_told_in_one_line() {
        let gpu = Gpu { name: "RTX 4090".into(), vram_total: 24 * GIB, vram_free: 23 * GIB };
        let machine = Hardware {
            memory_total: 64 * GIB,
            memory_available: 60 * GIB + 1,
            cores: 16,
            cpu_features: vec!["avx2"],
            gpus: vec![gpu],
        };
        assert_eq!(
            machine.to_string(),
            "64.0 GiB of memory (60.1 GiB available), 16 cores (avx2), RTX 4090 with 24.0 GiB (23.0 GiB free)"
        );
        assert_eq!((Gibibytes(GIB - MIB).to_string(), Gibibytes(1).to_string()), ("1023 MiB".into(), "1 MiB".into()));
        assert!(Hardware { gpus: Vec::new(), ..machine }.to_string().ends_with("no NVIDIA GPU"));
    }
}
