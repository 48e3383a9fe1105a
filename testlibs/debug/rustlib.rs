//! What a debugger is shown in Rust: an enum with data, a vector, a function in a module. The
//! marks are where tests set breakpoints.

pub mod shapes {
    #[derive(Debug)]
    pub enum Shape {
        Circle(f64),
        Rectangle { width: u32, height: u32 },
    }

    #[inline(never)]
    pub fn area(shape: &Shape, scale: i32) -> i32 {
        let factors = vec![1, 2, 3];
        let factor = factors[0] * scale; // MARK area
        match shape {
            Shape::Circle(radius) => (*radius * 3.0) as i32 * factor,
            Shape::Rectangle { width, height } => (*width * *height) as i32 * factor,
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn entry(n: i32) -> i32 {
    let rectangle = shapes::Shape::Rectangle { width: 3, height: 4 };
    let circle = shapes::Shape::Circle(1.0);
    let first = shapes::area(&rectangle, n); // MARK entry
    first + shapes::area(&circle, n)
}
