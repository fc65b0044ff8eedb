//! NOTE FROM LEAD: see html/NOTE-FROM-LEAD.txt: your files here were deleted by mistake; please recreate from context.

pub fn html(_summary: &super::Summary) -> String {
    String::new()
}
