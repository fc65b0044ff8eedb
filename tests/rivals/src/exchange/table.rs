//! Tables of at most 80 columns, row by row as they come.

/// Columns and their widths; the first one is left-aligned.
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Prints a title and the heads. A column is as wide as its head and what `wide` asks for.
    pub fn new(title: &str, columns: &[(&str, usize)]) -> Table {
        println!("\n{title}");
        let widths = columns.iter().map(|(head, wide)| head.chars().count().max(*wide)).collect();
        let table = Table { widths };
        table.row(&columns.iter().map(|(head, _)| (*head).to_owned()).collect::<Vec<_>>());
        let width = table.widths.iter().sum::<usize>() + 2 * (table.widths.len() - 1);
        println!("{}", "-".repeat(width));
        table
    }

    /// Prints a row.
    pub fn row(&self, cells: &[String]) {
        let mut line = String::new();
        for (number, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            if number > 0 {
                line.push_str("  ");
            }
            line += &if number == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        }
        println!("{}", line.trim_end());
    }

    /// Prints a line of its own.
    pub fn note(&self, text: &str) {
        println!("{text}");
    }

    /// Prints why a row has no numbers.
    pub fn failed(&self, name: &str, why: &str) {
        let width = self.widths.first().copied().unwrap_or(0);
        println!("{name:<width$}  failed: {why}");
    }
}

/// The middle one; of an even number, the mean of the two in the middle. NaN if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(&upper), 0) => f64::midpoint(upper, sorted[middle - 1]),
        (Some(&value), _) => value,
        (None, _) => f64::NAN,
    }
}

/// The value that `share` of them do not exceed. NaN if there is none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// A number with so many decimals, or a dash.
pub fn cell(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "-".into() }
}

/// Bytes as MiB.
pub fn mib(bytes: f64) -> String {
    cell(bytes / 1_048_576.0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_and_a_quantile_are_of_the_sorted_values() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (50.0, 99.0));
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
    }
}
