use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn read(path: &str, text: &str) -> Symbols {
    let path = path.parse().unwrap();
    let language = crate::code::languages::language(&path).unwrap();
    SymbolReader::new().read(&path, language, text, &|| true).unwrap().unwrap()
}

/// Kind, name, line and column of each.
fn listed(path: &str, text: &str) -> Vec<String> {
    let line = |symbol: Symbol| {
        let kind = serde_json::to_value(symbol.kind).unwrap();
        format!("{} {} {}:{}", kind.as_str().unwrap(), symbol.name, symbol.line, symbol.column)
    };
    read(path, text).symbols.into_iter().map(line).collect()
}

#[test]
fn rust_is_read() {
    let text = r#"
pub const LIMIT: usize = 3;
static NAME: &str = "x";
pub struct Point { x: f64 }
union Bits { a: u8 }
enum Way { Up }
type Pair = (u8, u8);
trait Shape { const SIDES: u8; fn area(&self) -> f64; fn name(&self) {} }
impl Shape for Point {
    fn area(&self) -> f64 { fn inner() {} 0.0 }
}
mod inside { pub fn deep() {} }
macro_rules! say { () => {} }
extern "C" { fn abs(x: i32) -> i32; }
async fn main() { struct Local; }
"#;
    let expected = [
        "constant LIMIT 2:11",
        "constant NAME 3:8",
        "struct Point 4:12",
        "union Bits 5:7",
        "enum Way 6:6",
        "type Pair 7:6",
        "trait Shape 8:7",
        "constant SIDES 8:21",
        "method area 8:35",
        "method name 8:58",
        "method area 10:8",
        "module inside 12:5",
        "function deep 12:21",
        "macro say 13:14",
        "function abs 14:17",
        "function main 15:10",
    ];
    assert_eq!(listed("src/lib.rs", text), expected);
}

#[test]
fn python_is_read() {
    let text = r#"
MAX = 3
lower = 4
class Dog(Animal):
    LEGS = 4
    @property
    def name(self):
        def inner(): pass
        return self._name
async def main():
    x = 1
if True:
    def maybe(): pass
try:
    import fast
except ImportError:
    class fast: pass
"#;
    let expected = [
        "constant MAX 2:1",
        "class Dog 4:7",
        "constant LEGS 5:5",
        "method name 7:9",
        "function main 10:11",
        "function maybe 13:9",
        "class fast 17:11",
    ];
    assert_eq!(listed("a.py", text), expected);
}

#[test]
fn javascript_and_typescript_are_read() {
    let text = r"
export function go() { function inner() {} }
function* many() {}
export default class Car { #x = 1; drive() {} stop = () => {}; static make() {} }
const add = (a, b) => a + b, LIMIT = 3;
let changes = 1;
var old = function () {};
";
    let expected = [
        "function go 2:17",
        "function many 3:11",
        "class Car 4:22",
        "method drive 4:36",
        "method stop 4:47",
        "method make 4:71",
        "function add 5:7",
        "constant LIMIT 5:30",
        "function old 7:5",
    ];
    assert_eq!(listed("a.js", text), expected);
    let text = r"
export interface Shape { area(): number; name: string }
export type Id = string | number;
export enum Way { Up, Down }
export abstract class Base { abstract run(): void; private go(): void {} }
export namespace Inner { export function f(): void {} }
declare function outside(x: number): void;
export const f = async (): Promise<void> => {};
";
    let expected = [
        "interface Shape 2:18",
        "method area 2:26",
        "type Id 3:13",
        "enum Way 4:13",
        "class Base 5:23",
        "method run 5:39",
        "method go 5:60",
        "module Inner 6:18",
        "function f 6:42",
        "function outside 7:18",
        "function f 8:14",
    ];
    assert_eq!(listed("a.ts", text), expected);
    assert_eq!(listed("a.tsx", "export const App = () => <b>hi</b>;"), ["function App 1:14"]);
}

#[test]
fn go_is_read() {
    let text = "package main\n\nconst Pi, E = 3.14, 2.71\nconst (\n\tA = iota\n\tB\n)\nvar x = 1\ntype Point struct { X int }\n\
                type Shape interface { Area() float64 }\ntype (\n\tId = string\n\tAge int\n)\n\
                func (p *Point) Move(dx int) {}\nfunc main() {}\n";
    let expected = [
        "constant Pi 3:7",
        "constant E 3:11",
        "constant A 5:2",
        "constant B 6:2",
        "struct Point 9:6",
        "interface Shape 10:6",
        "type Id 12:2",
        "type Age 13:2",
        "method Move 15:17",
        "function main 16:6",
    ];
    assert_eq!(listed("main.go", text), expected);
}

#[test]
fn c_and_cpp_are_read() {
    let text = r"
#ifndef GUARD_H
#define GUARD_H
#define LIMIT 3
#define MAX(a, b) ((a) > (b) ? (a) : (b))
struct point { int x; };
struct other;
typedef struct node { struct node *next; } node_t;
typedef unsigned long size;
union bits { int a; };
enum way { UP, DOWN };
static const int ANSWER = 42;
int counter;
char *name(const char *of, int n);
int (*callback)(int);
static int
twice(int x) { struct local { int y; }; return 2 * x; }
#endif
";
    let expected = [
        "constant LIMIT 4:9",
        "macro MAX 5:9",
        "struct point 6:8",
        "struct node 8:16",
        "type node_t 8:44",
        "type size 9:23",
        "union bits 10:7",
        "enum way 11:6",
        "constant ANSWER 12:18",
        "function name 14:7",
        "function twice 17:1",
    ];
    assert_eq!(listed("a.h", text), expected);
    let text = r"
namespace shapes {
template <typename T> class Box { public: Box(); ~Box() {} T get() const { return t; } bool operator==(const Box &o); T t; };
enum class Way { Up };
using Id = int;
template <typename T> concept Small = sizeof(T) < 8;
int free_one(int x) { return x; }
}
int shapes::Other::area() { return 1; }
constexpr int N = 3;
struct Plain { int run(); };
";
    let expected = [
        "module shapes 2:11",
        "class Box 3:29",
        "method Box 3:43",
        "method ~Box 3:50",
        "method get 3:62",
        "method operator== 3:93",
        "enum Way 4:12",
        "type Id 5:7",
        "trait Small 6:31",
        "function free_one 7:5",
        "method area 9:20",
        "constant N 10:15",
        "struct Plain 11:8",
        "method run 11:20",
    ];
    assert_eq!(listed("a.cpp", text), expected);
}

#[test]
fn java_is_read() {
    let text = r"
package a.b;
public class Car extends Thing {
    public static final int WHEELS = 4, DOORS = 5;
    private int speed;
    public Car() {}
    @Override
    public void drive(int far) { int x = 1; }
    enum Way { UP, DOWN; void turn() {} }
    record Point(int x, int y) {}
}
interface Shape { double area(); int SIDES = 3; }
@interface Fast { int value(); }
";
    let expected = [
        "class Car 3:14",
        "constant WHEELS 4:29",
        "constant DOORS 4:41",
        "method Car 6:12",
        "method drive 8:17",
        "enum Way 9:10",
        "constant UP 9:16",
        "constant DOWN 9:20",
        "method turn 9:31",
        "class Point 10:12",
        "interface Shape 12:11",
        "method area 12:26",
        "constant SIDES 12:38",
        "interface Fast 13:12",
        "method value 13:23",
    ];
    assert_eq!(listed("Car.java", text), expected);
}

fn documented(path: &str, text: &str) -> Vec<Option<String>> {
    read(path, text).symbols.into_iter().map(|symbol| symbol.documentation).collect()
}

#[test]
fn what_stands_in_front_of_a_definition_documents_it() {
    let rust = "//! Of the file.\n\n/// Adds.\n///\n/// Twice.\n#[inline]\n#[must_use]\nfn add() {}\n// No documentation.\n\
                fn other() {}\n/// Far away.\n\nfn third() {}\n/** Block. */\nfn fourth() {}\n";
    let said = documented("a.rs", rust);
    assert_eq!(said, [Some("Adds.\n\nTwice.".into()), None, None, Some("Block.".into())]);
    let python =
        "# Not it.\n\nclass A:\n    '''One.\n\n    Two.\n    '''\n    # Above.\n    @wrapped\n    def f(self): pass\n";
    assert_eq!(documented("a.py", python), [Some("One.\n\nTwo.".into()), Some("Above.".into())]);
    let script = "/**\n * Goes.\n * @returns {void}\n */\nexport function go() {}\n\n// Short.\nconst x = 1;\n";
    assert_eq!(documented("a.ts", script), [Some("Goes.\n@returns {void}".into()), Some("Short.".into())]);
    let go = "// Pi is round.\nconst Pi = 3\n\n/* Main runs. */\nfunc main() {}\n";
    assert_eq!(documented("a.go", go), [Some("Pi is round.".into()), Some("Main runs.".into())]);
    let cpp = "/// A box.\ntemplate <typename T>\nclass Box {\n  // Gets it.\n  T get();\n};\n";
    assert_eq!(documented("a.cpp", cpp), [Some("A box.".into()), Some("Gets it.".into())]);
    let java = "/** A car. */\n@Fast\npublic class Car {\n  /** Drives. */\n  @Override\n  void drive() {}\n}\n";
    assert_eq!(documented("A.java", java), [Some("A car.".into()), Some("Drives.".into())]);
}

#[test]
fn a_signature_is_one_line_of_a_bounded_length() {
    let text =
        format!("pub fn f(x: u8) -> u8 {{\n x }}\nfn g(\n  x: u8,\n) {{}}\nfn h{}() {{}}\n", "x: u8, ".repeat(100));
    let found = read("a.rs", &text).symbols;
    assert_eq!(found[0].signature.as_deref(), Some("pub fn f(x: u8) -> u8"));
    assert_eq!(found[1].signature.as_deref(), Some("fn g("));
    let java = read("A.java", "class A {\n  @Override\n  public void run() { x(); }\n}");
    assert_eq!(java.symbols[1].signature.as_deref(), Some("public void run() { x(); }"));
    let minified = format!("{}function f() {{}};{}", "é;".repeat(100_000), "x;".repeat(100_000));
    let long = read("a.js", &minified).symbols;
    assert_eq!(long[0].column, 200_010);
    assert!(long[0].signature.as_ref().unwrap().len() <= LONGEST_SIGNATURE);
    let documented = format!("/// {}\nfn f() {{}}", "ü".repeat(10_000));
    assert!(read("a.rs", &documented).symbols[0].documentation.as_ref().unwrap().len() <= 1_004);
}

#[test]
fn columns_count_characters() {
    assert_eq!(
        listed("a.js", "/* äöü */ function f() {} /* € */ function g() {}"),
        ["function f 1:20", "function g 1:44"]
    );
}

#[test]
fn broken_files_still_have_symbols() {
    let found = listed("a.rs", "fn good() {}\nfn bad( {\nstruct Also { x: u8 }\n");
    assert!(found.contains(&"function good 1:4".to_owned()), "{found:?}");
}

#[test]
fn a_file_has_only_so_many_symbols() {
    let text = "fn f() {}\n".repeat(MOST_SYMBOLS + 10);
    let found = read("a.rs", &text);
    assert_eq!((found.symbols.len(), found.cut), (MOST_SYMBOLS, true));
    assert!(!read("a.rs", "fn f() {}").cut);
}

#[test]
fn files_that_are_made_to_hurt_end_soon() {
    let many = 100_000;
    let nested = |open: &str, close: &str| format!("{}x{}", open.repeat(many), close.repeat(many));
    for (path, text) in [
        ("a.rs", nested("mod a {", "}")),
        ("a.rs", nested("(", ")")),
        ("a.js", nested("[", "]")),
        ("a.js", nested("class A { f = ", "}")),
        ("a.ts", nested("namespace A {", "}")),
        ("a.cpp", nested("namespace a {", "}")),
        ("a.cpp", nested("template <", ">")),
        ("a.c", nested("#if 1\n", "#endif\n")),
        ("a.c", format!("int {}f;", "*".repeat(many))),
        ("a.py", (0..2_000).map(|n| format!("{}class A:\n", " ".repeat(n))).collect()),
        ("A.java", nested("class A {", "}")),
        ("a.go", nested("func() {", "}")),
    ] {
        let begun = std::time::Instant::now();
        let go_on = || begun.elapsed() < Duration::from_secs(1);
        let path: RelativePath = path.parse().unwrap();
        let language = crate::code::languages::language(&path).unwrap();
        // Read or given up: both are fine, a crash or an endless wait is not.
        let _ = SymbolReader::new().read(&path, language, &text, &go_on);
        assert!(begun.elapsed() < Duration::from_secs(30), "{path} of {} bytes", text.len());
    }
}

#[test]
fn reading_ends_when_it_is_told_to() {
    let text = "fn f() {}\n".repeat(10_000);
    let path = "a.rs".parse().unwrap();
    let mut reader = SymbolReader::new();
    assert_eq!(reader.read(&path, "Rust", &text, &|| false), Err(Stopped));
    // And can begin again.
    assert_eq!(reader.read(&path, "Rust", "fn f() {}", &|| true).unwrap().unwrap().symbols.len(), 1);
    assert_eq!(reader.read(&path, "COBOL", "", &|| true), Ok(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_in_any_language_is_read_without_a_panic(text: String, bytes: Vec<u8>) {
        let path = "a".parse().unwrap();
        let mut reader = SymbolReader::new();
        for language in ["Rust", "Python", "JavaScript", "TypeScript", "TSX", "Go", "C", "C++", "Java"] {
            for text in [&text, &String::from_utf8_lossy(&bytes).into_owned()] {
                let found = reader.read(&path, language, text, &|| true).unwrap().unwrap();
                prop_assert!(found.symbols.iter().all(|symbol| !symbol.name.is_empty()));
            }
        }
    }

    #[test]
    fn pieces_of_code_in_any_order_are_read_without_a_panic(
        pieces in prop::collection::vec(0_usize..30, 0..60)
    ) {
        const PIECES: [&str; 30] = [
            "fn ", "class ", "struct ", "{", "}", "(", ")", "\n", "    ", "/** x */", "// y\n", "a", "B", " = ", "*", "<", ">",
            "::", ";", "\"", "#define ", "template ", "export ", "const ", "def ", ":", "func ", "type ", "@x ", "é",
        ];
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        let path = "a".parse().unwrap();
        let mut reader = SymbolReader::new();
        for language in ["Rust", "Python", "JavaScript", "TypeScript", "TSX", "Go", "C", "C++", "Java"] {
            reader.read(&path, language, &text, &|| true).unwrap();
        }
    }
}
