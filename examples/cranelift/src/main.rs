//! A function that Cranelift's JIT compiles, in gdb: breakpoints by line, arguments, locals, backtraces.
//!
//!     cargo build
//!     gdb -ex 'set breakpoint pending on' -ex 'break squares.toy:5' -ex run --args target/debug/cranelift-example 5
//!
//! The language has one function. Its source is below, and so is its code, which a front end would make. Then come the
//! parts that any JIT has to write: DWARF ([`describe`]), and an object around it ([`object`]). The rest is two calls of
//! memdl-symfile.

use std::collections::HashMap;
use std::error::Error;

use cranelift_codegen::ir::{self, AbiParam, InstBuilder, SourceLoc, ValueLabel, types};
use cranelift_codegen::isa::{TargetFrontendConfig, TargetIsa, unwind::UnwindInfo};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CompiledCode, Context, LabelValueLoc};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module};
use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, Expression, FrameTable, LineProgram, LineString,
    Location, LocationList, Range, RangeList, RelocateWriter, Relocation, RelocationTarget, Sections,
    UnitEntryId,
};
use gimli::{Encoding, Format, LineEncoding, LittleEndian, Register, SectionId};
use memdl_symfile::{Options, Registration, Symfile};
use object::write::{Object, SectionId as ObjectSection, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, RelocationFlags, SymbolFlags, SymbolKind, SymbolScope};

const FILE: &str = "squares.toy";
const SOURCE: &str = "\
fn sum_of_squares(n)
    sum = 0
    i = 1
    while i <= n
        sum = sum + i * i
        i = i + 1
    return sum
";
const NAME: &str = "sum_of_squares";
/// The variables, by the numbers of their labels. The first is the argument.
const VARIABLES: [&str; 3] = ["n", "sum", "i"];

fn main() -> Result<(), Box<dyn Error>> {
    let n = std::env::args().nth(1).map_or(Ok(5), |word| word.parse())?;
    // gdb shows lines of a file. It is beside the program.
    let folder = std::env::current_exe()?.parent().ok_or("no folder")?.to_owned();
    std::fs::write(folder.join(FILE), SOURCE)?;

    let mut flags = settings::builder();
    flags.set("opt_level", "none")?;
    flags.set("preserve_frame_pointers", "true")?;
    let isa = cranelift_native::builder()?.finish(settings::Flags::new(flags))?;
    let builder = JITBuilder::with_isa(isa.clone(), cranelift_module::default_libcall_names());
    let mut module = JITModule::new(builder);
    let mut context = module.make_context();
    compile(&mut context, isa.frontend_config());
    let function = module.declare_function(NAME, Linkage::Export, &context.func.signature)?;
    module.define_function(function, &mut context)?;
    module.finalize_definitions()?;
    let code = module.get_finalized_function(function);

    let compiled = context.compiled_code().ok_or("nothing was compiled")?;
    let object = object(compiled, &*isa, &folder.to_string_lossy())?;
    let place = |section: &str| (section == ".text").then_some(code as u64);
    let symfile = Symfile::of_object(&object, &place, &Options::new())?;
    // SAFETY: the code stays as long as `module`, which is dropped later.
    let registration = unsafe { Registration::new(symfile) };

    // SAFETY: the function has this type.
    let function: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(code) };
    println!("{NAME}({n}) = {}", function(n));
    drop(registration);
    Ok(())
}

/// The code of the function, with the lines and the variables that it comes from.
fn compile(context: &mut Context, frontend_config: TargetFrontendConfig) {
    context.func.collect_debug_info();
    context.func.signature.params.push(AbiParam::new(types::I32));
    context.func.signature.returns.push(AbiParam::new(types::I32));
    let mut frontend = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut frontend);
    let [entry, head, body, end] = std::array::from_fn(|_| builder.create_block());
    let [n, sum, i] = std::array::from_fn(|_| builder.declare_var(types::I32));
    let line = |builder: &mut FunctionBuilder<'_>, line| builder.set_srcloc(SourceLoc::new(line));
    let set = |builder: &mut FunctionBuilder<'_>, variable, value| {
        let label = [n, sum, i].iter().position(|it| *it == variable).unwrap_or_default();
        builder.set_val_label(value, ValueLabel::from_u32(label as u32));
        builder.def_var(variable, value);
    };

    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    line(&mut builder, 1);
    let argument = builder.block_params(entry)[0];
    set(&mut builder, n, argument);
    line(&mut builder, 2);
    let zero = builder.ins().iconst(types::I32, 0);
    set(&mut builder, sum, zero);
    line(&mut builder, 3);
    let one = builder.ins().iconst(types::I32, 1);
    set(&mut builder, i, one);
    builder.ins().jump(head, &[]);

    builder.switch_to_block(head);
    line(&mut builder, 4);
    // Each turn has values of its own, which are these variables now.
    let [i_now, n_now, _] = [i, n, sum].map(|variable| {
        let value = builder.use_var(variable);
        set(&mut builder, variable, value);
        value
    });
    let goes_on = builder.ins().icmp(ir::condcodes::IntCC::SignedLessThanOrEqual, i_now, n_now);
    builder.ins().brif(goes_on, body, &[], end, &[]);

    builder.switch_to_block(body);
    line(&mut builder, 5);
    let [sum_now, i_now] = [sum, i].map(|variable| builder.use_var(variable));
    let square = builder.ins().imul(i_now, i_now);
    let larger = builder.ins().iadd(sum_now, square);
    set(&mut builder, sum, larger);
    line(&mut builder, 6);
    let next = builder.ins().iadd_imm_s(i_now, 1);
    set(&mut builder, i, next);
    builder.ins().jump(head, &[]);

    builder.switch_to_block(end);
    line(&mut builder, 7);
    let sum_now = builder.use_var(sum);
    builder.ins().return_(&[sum_now]);
    builder.seal_all_blocks();
    builder.finalize(frontend_config);
}

/// The address of an offset in the code: of the only symbol.
fn address(offset: u32) -> Address {
    Address::Symbol { symbol: 0, addend: offset.into() }
}

/// DWARF of the function: its unit, lines, variables and frame.
fn describe(
    compiled: &CompiledCode,
    isa: &dyn TargetIsa,
    folder: &str,
) -> Result<Sections<Debug>, Box<dyn Error>> {
    let encoding = Encoding { format: Format::Dwarf32, version: 5, address_size: 8 };
    let mut dwarf = DwarfUnit::new(encoding);
    let len = compiled.code_info().total_size;

    let [directory, file] = [folder, FILE].map(|text| LineString::String(text.into()));
    let line_encoding = LineEncoding::default();
    let mut program =
        LineProgram::new(encoding, line_encoding, directory.clone(), None, file.clone(), None);
    let file_id = program.add_file(file, program.default_directory(), None);
    program.begin_sequence(Some(address(0)));
    for place in compiled.buffer.get_srclocs_sorted() {
        program.row().address_offset = place.start.into();
        program.row().file = file_id;
        program.row().line = place.loc.bits().into();
        program.generate_row();
    }
    program.end_sequence(len.into());
    dwarf.unit.line_program = program;

    let root = dwarf.unit.root();
    let text = |text: &str| AttributeValue::String(text.into());
    let ranges = RangeList(vec![Range::StartLength { begin: address(0), length: len.into() }]);
    let ranges = dwarf.unit.ranges.add(ranges);
    for (name, value) in [
        (gimli::DW_AT_producer, text("cranelift-example")),
        (gimli::DW_AT_language, AttributeValue::Language(gimli::DW_LANG_C99)),
        (gimli::DW_AT_name, text(FILE)),
        (gimli::DW_AT_comp_dir, text(folder)),
        (gimli::DW_AT_low_pc, AttributeValue::Address(Address::Constant(0))),
        (gimli::DW_AT_ranges, AttributeValue::RangeListRef(ranges)),
        (gimli::DW_AT_stmt_list, AttributeValue::LineProgramRef),
    ] {
        dwarf.unit.get_mut(root).set(name, value);
    }
    let int = dwarf.unit.add(root, gimli::DW_TAG_base_type);
    for (name, value) in [
        (gimli::DW_AT_name, text("int")),
        (gimli::DW_AT_byte_size, AttributeValue::Udata(4)),
        (gimli::DW_AT_encoding, AttributeValue::Encoding(gimli::DW_ATE_signed)),
    ] {
        dwarf.unit.get_mut(int).set(name, value);
    }
    let function = dwarf.unit.add(root, gimli::DW_TAG_subprogram);
    let mut frame_base = Expression::new();
    frame_base.op(gimli::DW_OP_call_frame_cfa);
    for (name, value) in [
        (gimli::DW_AT_name, text(NAME)),
        (gimli::DW_AT_external, AttributeValue::FlagPresent),
        (gimli::DW_AT_prototyped, AttributeValue::FlagPresent),
        (gimli::DW_AT_decl_file, AttributeValue::FileIndex(Some(file_id))),
        (gimli::DW_AT_decl_line, AttributeValue::Udata(1)),
        (gimli::DW_AT_type, AttributeValue::UnitRef(int)),
        (gimli::DW_AT_low_pc, AttributeValue::Address(address(0))),
        (gimli::DW_AT_high_pc, AttributeValue::Udata(len.into())),
        (gimli::DW_AT_frame_base, AttributeValue::Exprloc(frame_base)),
    ] {
        dwarf.unit.get_mut(function).set(name, value);
    }
    for (label, name) in VARIABLES.iter().enumerate() {
        variable(&mut dwarf, function, int, label as u32, name, compiled, isa)?;
    }

    let mut sections = Sections::new(Debug::default());
    dwarf.write(&mut sections)?;
    if let Some(UnwindInfo::SystemV(unwind)) = compiled.create_unwind_info(isa)? {
        let mut table = FrameTable::default();
        let cie = isa.create_systemv_cie().ok_or("no unwind information for this machine")?;
        let cie = table.add_cie(cie);
        table.add_fde(cie, unwind.to_fde(address(0)));
        table.write_debug_frame(&mut sections.debug_frame)?;
    }
    Ok(sections)
}

/// A variable, wherever it is at each place of the code.
fn variable(
    dwarf: &mut DwarfUnit,
    function: UnitEntryId,
    int: UnitEntryId,
    label: u32,
    name: &str,
    compiled: &CompiledCode,
    isa: &dyn TargetIsa,
) -> Result<(), Box<dyn Error>> {
    let ranges = compiled.value_labels_ranges.get(&ValueLabel::from_u32(label));
    let mut locations = Vec::new();
    for range in ranges.into_iter().flatten() {
        let mut data = Expression::new();
        match range.loc {
            LabelValueLoc::Reg(register) => {
                data.op_reg(Register(isa.map_regalloc_reg_to_dwarf(register)?));
            }
            LabelValueLoc::CFAOffset(offset) => data.op_fbreg(offset),
        }
        let [begin, end] = [range.start, range.end].map(address);
        locations.push(Location::StartEnd { begin, end, data });
    }
    let locations = dwarf.unit.locations.add(LocationList(locations));
    let tag = match label {
        0 => gimli::DW_TAG_formal_parameter,
        _ => gimli::DW_TAG_variable,
    };
    let variable = dwarf.unit.add(function, tag);
    let variable = dwarf.unit.get_mut(variable);
    variable.set(gimli::DW_AT_name, AttributeValue::String(name.into()));
    variable.set(gimli::DW_AT_type, AttributeValue::UnitRef(int));
    variable.set(gimli::DW_AT_location, AttributeValue::LocationListRef(locations));
    Ok(())
}

/// A debug section, with its relocations.
#[derive(Clone)]
struct Debug {
    data: EndianVec<LittleEndian>,
    relocations: Vec<Relocation>,
}

impl Default for Debug {
    fn default() -> Debug {
        Debug { data: EndianVec::new(LittleEndian), relocations: Vec::new() }
    }
}

impl RelocateWriter for Debug {
    type Writer = EndianVec<LittleEndian>;

    fn writer(&self) -> &Self::Writer {
        &self.data
    }

    fn writer_mut(&mut self) -> &mut Self::Writer {
        &mut self.data
    }

    fn relocate(&mut self, relocation: Relocation) {
        self.relocations.push(relocation);
    }
}

/// A relocatable object with the code and its description.
fn object(
    compiled: &CompiledCode,
    isa: &dyn TargetIsa,
    folder: &str,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let architecture = match std::env::consts::ARCH {
        "aarch64" => Architecture::Aarch64,
        _ => Architecture::X86_64,
    };
    let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
    let text = object.section_id(StandardSection::Text);
    object.append_section_data(text, compiled.code_buffer(), 16);
    let function = object.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: compiled.code_info().total_size.into(),
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    let sections = describe(compiled, isa, folder)?;
    let mut ids: HashMap<SectionId, ObjectSection> = HashMap::new();
    sections.for_each(|id, section| {
        if !section.data.slice().is_empty() {
            let kind = object::SectionKind::Debug;
            let added = object.add_section(Vec::new(), id.name().into(), kind);
            object.set_section_data(added, section.data.slice().to_vec(), 1);
            ids.insert(id, added);
        }
        Ok::<(), gimli::write::Error>(())
    })?;
    sections.for_each(|id, section| {
        let Some(&target) = ids.get(&id) else { return Ok::<(), Box<dyn Error>>(()) };
        for relocation in &section.relocations {
            let symbol = match relocation.target {
                RelocationTarget::Symbol(_) => function,
                RelocationTarget::Section(id) => {
                    let section = ids.get(&id).ok_or("a section that is empty")?;
                    object.section_symbol(*section)
                }
            };
            object.add_relocation(
                target,
                object::write::Relocation {
                    offset: relocation.offset as u64,
                    symbol,
                    addend: relocation.addend,
                    flags: RelocationFlags::Generic {
                        kind: object::RelocationKind::Absolute,
                        encoding: object::RelocationEncoding::Generic,
                        size: relocation.size * 8,
                    },
                },
            )?;
        }
        Ok(())
    })?;
    Ok(object.write()?)
}
