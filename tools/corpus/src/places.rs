//! What the addresses and the relocated words of this process mean, as [`Value`]s.

use std::ops::Range;

use goblin::elf::reloc::{
    R_X86_64_32, R_X86_64_64, R_X86_64_DTPMOD64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT,
    R_X86_64_PC32, R_X86_64_RELATIVE, R_X86_64_SIZE32, R_X86_64_TLSDESC, R_X86_64_TPOFF64,
};

use crate::library_file::Place;
use crate::process::Object;
use crate::values::Value;

/// Tells what addresses of this process mean.
pub struct Places<'a> {
    pub load_bias: u64,
    pub span: Range<u64>,
    pub objects: &'a [Object],
    /// Ascending segments, with their object.
    pub segments: Vec<(Range<u64>, u32)>,
    pub mapped: Vec<Range<u64>>,
    pub own_module: Option<u64>,
    pub own_block: Option<u64>,
}

impl Places<'_> {
    pub fn pointer(&self, value: u64) -> Value {
        let own = value.wrapping_sub(self.load_bias);
        // Its end counts (`_end`); by chance it is where the next library starts.
        if self.span.contains(&own) || own == self.span.end {
            return Value::Own(own);
        }
        let next = self.segments.partition_point(|(range, _)| range.start <= value);
        let found = next.checked_sub(1).and_then(|index| self.segments.get(index));
        if let Some((range, object)) = found
            && range.contains(&value)
        {
            let base = self.objects[*object as usize].load_bias;
            return Value::Library(*object, value.wrapping_sub(base));
        }
        if self.mapped.iter().any(|range| range.contains(&value)) {
            Value::Anonymous
        } else {
            Value::Number(value)
        }
    }

    /// The address of a thread-local variable.
    pub fn thread_local(&self, address: u64) -> Value {
        // An undefined weak variable's, give or take an addend.
        if address.wrapping_add(0x10000) < 0x20000 {
            return Value::Number(address);
        }
        let own_module = self.own_module;
        // The executable's block is where memdl keeps initial-exec blocks.
        for object in self.objects.iter().skip(1) {
            if object.tls_block.contains(&address) && Some(object.tls_module) != own_module {
                let offset = address - object.tls_block.start;
                return Value::LibraryThreadLocal(object.index, offset);
            }
        }
        Value::OwnThreadLocal(address.wrapping_sub(self.own_block.unwrap_or(0)))
    }

    fn module(&self, module: u64) -> Value {
        if module == 0 {
            return Value::Number(0);
        }
        let found = self.objects.iter().skip(1).find(|object| object.tls_module == module);
        match found {
            Some(object) if self.own_module != Some(module) => Value::LibraryModule(object.index),
            _ => Value::OwnModule,
        }
    }

    /// The word at a place that a relocation wrote.
    pub fn word(&self, place: &Place) -> Value {
        let at = self.load_bias.wrapping_add(place.at);
        if !self.span.contains(&place.at) {
            return Value::Missing;
        }
        let width =
            if let R_X86_64_32 | R_X86_64_PC32 | R_X86_64_SIZE32 = place.r_type { 4 } else { 8 };
        let mut bytes = [0; 8];
        // SAFETY: the place lies in the image, which is loaded, where the loader wrote a moment ago.
        unsafe {
            std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), width);
        }
        let word = u64::from_le_bytes(bytes);
        match place.r_type {
            R_X86_64_RELATIVE | R_X86_64_64 => {
                // The addend may lead out of the object.
                let addend = place.addend as u64;
                if place.symbol.is_none() {
                    if word == self.load_bias.wrapping_add(addend) {
                        return Value::Own(addend);
                    }
                    return self.pointer(word);
                }
                match self.pointer(word.wrapping_sub(addend)) {
                    Value::Own(base) => Value::Own(base.wrapping_add(addend)),
                    Value::Library(object, base) => {
                        Value::Library(object, base.wrapping_add(addend))
                    }
                    _ => self.pointer(word),
                }
            }
            R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => self.pointer(word),
            R_X86_64_PC32 => {
                let distance = i64::from(word as u32 as i32).wrapping_sub(place.addend);
                self.pointer(at.wrapping_add_signed(distance))
            }
            R_X86_64_DTPMOD64 => self.module(word),
            R_X86_64_TPOFF64 if word == 0 => Value::Number(0),
            R_X86_64_TPOFF64 => self.thread_local(thread_pointer().wrapping_add(word)),
            R_X86_64_TLSDESC => {
                // SAFETY: the loader stored a descriptor there.
                self.thread_local(unsafe { called_descriptor(at) })
            }
            // Offsets and sizes are what they are; IRELATIVE and the rest are pointers.
            _ => self.pointer(word),
        }
    }
}

fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: the psABI keeps the thread pointer at offset 0 of its segment.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags));
    }
    pointer
}

/// The address that a TLS descriptor stands for.
///
/// # Safety
/// There is a descriptor at `at`.
unsafe fn called_descriptor(at: u64) -> u64 {
    let offset: u64;
    // SAFETY: the calling convention of descriptors: address in rax, distance from the thread
    // pointer back in rax, all else kept. The default options let it use the stack.
    unsafe {
        std::arch::asm!("call [rax]", inout("rax") at => offset, clobber_abi("C"));
    }
    thread_pointer().wrapping_add(offset)
}
