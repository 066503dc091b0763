//! What a manager and its storage cost in memory, as a function of the capacities.

use vm_device::{DeviceManager, Dispatcher, MEMORY_HINTS, PORT_HINTS, Storage};

const fn size<const DEVICES: usize, const RANGES: usize, const VCPUS: usize>() -> usize {
    size_of::<Storage<'static, DEVICES, RANGES, VCPUS>>()
}

const PER_DEVICE: usize = (size::<72, 64, 1>() - size::<8, 64, 1>()) / 64;
const PER_RANGE: usize = (size::<8, 128, 1>() - size::<8, 64, 1>()) / 64;
const PER_VCPU: usize = (size::<8, 64, 9>() - size::<8, 64, 1>()) / 8;

const HANDLE: usize = size_of::<Dispatcher<'static, 1, 1>>();
const HINTS: usize = size_of::<Dispatcher<'static>>() - HANDLE;
const MANAGER: usize = size_of::<DeviceManager<'static>>();
const SMALL_EMBEDDER: usize = size::<8, 16, 2>() + MANAGER + 2 * HANDLE;

/// The rows of the guide's table, which `.ci/footprint` prints.
fn rows() -> [String; 12] {
    [
        "| memory | bytes |".into(),
        "|---|---|".into(),
        format!("| each device | {PER_DEVICE} |"),
        format!("| each range (it can lie in either space) | {PER_RANGE} |"),
        format!("| each vCPU | {PER_VCPU} |"),
        format!("| a manager, whatever its storage | {MANAGER} |"),
        format!("| each vCPU's handle, with one hint for each space | {HANDLE} |"),
        format!("| as many more as it has by default, {PORT_HINTS} and {MEMORY_HINTS} | {HINTS} |"),
        format!("| storage for 8 devices, 16 ranges, 2 vCPUs | {} |", size::<8, 16, 2>()),
        format!("| the same, its manager, and two handles with one hint for each space | {SMALL_EMBEDDER} |"),
        format!("| storage for 32 devices, 64 ranges, 4 vCPUs | {} |", size::<32, 64, 4>()),
        format!("| storage for 256 devices, 1024 ranges, 16 vCPUs | {} |", size::<256, 1024, 16>()),
    ]
}

/// `.ci/footprint` shows what this prints.
#[test]
fn memory_is_what_the_capacities_ask_for() {
    rows().iter().for_each(|row| println!("{row}"));
    const { assert!(PER_DEVICE <= 128 && PER_RANGE <= 160 && PER_VCPU == 64 && SMALL_EMBEDDER <= 4112) };
}

#[test]
fn the_documentation_gives_the_true_sizes() {
    let small = size::<8, 16, 2>();
    let page = include_str!("../src/guide/memory.md");
    let sizes = format!(
        "takes {small} bytes: {PER_DEVICE} for each further device, {PER_RANGE} for each range, {PER_VCPU} for each vCPU"
    );
    assert!(page.contains(&sizes), "{sizes}");
    assert!(page.contains(&format!("handle takes {} bytes", HANDLE + HINTS)));
    for row in rows() {
        assert!(page.contains(&row), "the page does not say {row}");
    }
}
