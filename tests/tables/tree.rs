//! Reads a flattened device tree, by the specification (Devicetree Specification 0.4, chapter 5).

fn cell(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn text(bytes: &[u8], at: usize) -> &str {
    let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap();
    std::str::from_utf8(&bytes[at..at + end]).unwrap()
}

/// The value of a property as text: what looks like texts, or cells, or bytes.
fn value(bytes: &[u8]) -> String {
    let is_text = bytes.len() > 1
        && bytes.last() == Some(&0)
        && bytes
            .split(|byte| *byte == 0)
            .rev()
            .skip(1)
            .all(|part| !part.is_empty() && part.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '));
    if bytes.is_empty() {
        String::new()
    } else if is_text {
        let texts: Vec<_> = bytes[..bytes.len() - 1].split(|byte| *byte == 0).collect();
        let texts: Vec<_> = texts.iter().map(|text| format!("\"{}\"", String::from_utf8_lossy(text))).collect();
        format!(" = {}", texts.join(", "))
    } else if bytes.len().is_multiple_of(4) {
        let cells: Vec<_> = (0..bytes.len()).step_by(4).map(|at| format!("{:x}", cell(bytes, at))).collect();
        format!(" = <{}>", cells.join(" "))
    } else {
        format!(" = {bytes:x?}")
    }
}

/// A tree as text: nodes and properties in their order, a line each.
pub(crate) fn read(blob: &[u8]) -> String {
    assert_eq!(cell(blob, 0), 0xd00d_feed);
    let field = |index: usize| cell(blob, index * 4) as usize;
    let (total, structure, strings, reserved) = (field(1), field(2), field(3), field(4));
    assert_eq!((total, field(5), field(6)), (blob.len(), 17, 16));
    assert_eq!((structure % 4, reserved % 8), (0, 0));
    assert_eq!((structure + field(9), strings + field(8)), (strings, total), "one block after the other");
    let mut lines = String::new();
    let mut at = reserved;
    loop {
        let [base, size] = [at, at + 8].map(|at| u64::from_be_bytes(blob[at..at + 8].try_into().unwrap()));
        at += 16;
        if (base, size) == (0, 0) {
            break;
        }
        lines += &format!("reserved {base:x} {size:x}\n");
    }
    assert_eq!(at, structure);
    let (mut depth, mut had_node) = (0, vec![false]);
    loop {
        at += 4;
        match cell(blob, at - 4) {
            1 => {
                let name = text(blob, at);
                lines += &format!("{}{name}/\n", "  ".repeat(depth));
                at += (name.len() + 1).next_multiple_of(4);
                depth += 1;
                *had_node.last_mut().unwrap() = true;
                had_node.push(false);
            }
            2 => {
                depth -= 1;
                had_node.pop();
            }
            3 => {
                assert_eq!(had_node.last(), Some(&false), "properties come before nodes");
                let length = cell(blob, at) as usize;
                let name = text(&blob[strings..], cell(blob, at + 4) as usize);
                lines += &format!("{}{name}{}\n", "  ".repeat(depth), value(&blob[at + 8..at + 8 + length]));
                at += 8 + length.next_multiple_of(4);
            }
            9 => break,
            other => panic!("a token {other}"),
        }
    }
    assert_eq!((depth, at), (0, strings));
    lines
}
