"""CSV and Parquet files as data sets: every cell is understood, or refused with its place."""

import csv
import datetime
import gzip
import io
import sys

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from data_loader.dataloader import DataLoader
from data_loader.sources.tables import Table
from tests.helpers.project import by_set
from utils import UserError

PENGUINS = """island,mass,female,day,species
Biscoe,4500,true,2007-11-11,Gentoo
Dream,3700.5,false,2007-11-12,Adelie
Torgersen,3250,true,2008-01-01,Adelie
Biscoe,+5.2e3,false,2007-12-31,Gentoo
"""


@pytest.fixture
def table(tmp_path):
    """Makes a Table of a text or of bytes."""

    def make(text, target="y", name="t.csv", **arguments):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Table(path, target, **arguments)

    return make


def test_numbers_are_standardised_and_categories_one_hot_as_scikit_learn_does(table):
    data = table(PENGUINS, "species", dates=["day"])
    mass = [[4500], [3700.5], [3250], [5200]]
    days = [
        (datetime.date(2007, 11, 11) + datetime.timedelta(n)).toordinal() for n in (0, 1, 51, 50)
    ]
    numbers = np.column_stack([mass, [1, 0, 1, 0], days])
    islands = [["Biscoe"], ["Dream"], ["Torgersen"], ["Biscoe"]]
    hot = OneHotEncoder(sparse_output=False).fit_transform(islands)
    expected = np.column_stack([StandardScaler().fit_transform(numbers), hot])
    np.testing.assert_allclose(data.inputs, expected, rtol=1e-5, atol=1e-6)
    assert data.inputs.dtype == np.float32
    assert data.features == [
        "mass", "female", "day", "island=Biscoe", "island=Dream", "island=Torgersen",
    ]  # fmt: skip
    assert data.classes == ["Adelie", "Gentoo"]
    assert data.targets.tolist() == data.labels.tolist() == [1, 0, 0, 1]


def test_a_test_file_is_read_by_the_meaning_of_the_training_file(table):
    train = table(PENGUINS, "species", dates=["day"])
    other = "species,day,mass,island,female\nGentoo,2007-11-12,4500,Dream,true\n"
    test = table(other, "species", dates=["day"], fitted=train.fitted)
    assert test.classes == train.classes
    assert test.targets.tolist() == [1]
    assert test.inputs[0, 0] == train.inputs[0, 0]  # the mass
    assert test.inputs[0, 2:].tolist() == train.inputs[1, 2:].tolist()  # day and island


def test_inputs_by_index_are_numbers_and_categories(table):
    data = table(PENGUINS, "species", inputs=["island", "mass"], encode="index")
    (inputs, target), (batch, _) = data[1], data.__getitems__(np.array([1, 2]))
    assert inputs["categories"].tolist() == [1]
    assert batch["categories"].tolist() == [[1], [2]]
    assert batch["numbers"].shape == (2, 1)
    assert target == 0


@pytest.mark.parametrize(
    ("text", "arguments", "targets"),
    [
        ("x,y\n1,7\n2,-3\n", {}, np.int32([7, -3])),
        ("x,y\n1,7\n2,-3.5\n", {}, np.float32([7, -3.5])),
        ("x,y\n1,7\n2,-3\n", {"classes": True}, np.int32([1, 0])),
        ("x,y\n1,10\n2,9\n", {"classes": True}, np.int32([1, 0])),
        ("x,y\n1,b\n2,a\n", {"classes": ["b", "a", "c"]}, np.int32([0, 1])),
        ("x,y\n1,True\n2,FALSE\n", {}, np.int32([1, 0])),
        ("x,y\n1,True\n2,FALSE\n", {"classes": False}, np.float32([1, 0])),
        ("x,y,z\n1,7,1\n2,-3,2\n", {"target": ["z", "y"]}, np.float32([[1, 7], [2, -3]])),
    ],
)
def test_targets_are_whole_numbers_numbers_or_classes(text, arguments, targets, table):
    data = table(text, **arguments)
    assert data.targets.dtype == targets.dtype
    assert data.targets.tolist() == targets.tolist()


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"x;y\n1,5;2\n2;3\n", {"separator": ";", "decimal": ","}),
        (b"\xef\xbb\xbfx,y\r\n1.5,2\r\n2,3\r\n", {}),
        (b"x,y\n 1.5 ,2\n\n2,3\n\n\n", {}),
        (b'"x","y"\n"1.5",2\n2,3', {}),
        ("x,y\n1.5,2\n2,3\n".encode("utf-16"), {"encoding": "utf-16"}),
        (b"x\ty\n1.5\t2\n2\t3\n", {"name": "t.tsv"}),
        (gzip.compress(b"x,y\n1.5,2\n2,3\n", mtime=0), {"name": "t.csv.gz"}),
        (b"x,y,\xe9\n1.5,2,k\n2,3,k\n", {"encoding": "latin-1", "inputs": ["x"]}),
        (b"x,y\n1.5,2\n999,3\n", {"missing_values": ["999"], "missing": "fill"}),
    ],
)
def test_dialects_of_csv_files_are_read(content, arguments, table):
    data = table(content, standardize=False, **arguments)
    second = 1.5 if "missing" in arguments else 2
    assert data.inputs.tolist() == [[1.5], [second]]
    assert data.targets.tolist() == [2, 3]


def test_what_is_missing_becomes_the_mean_or_a_category_of_its_own(table):
    text = "x,k,y\n1,a,0\nNA,b,1\n3,,0\n"
    data = table(text, missing="fill", standardize=False)
    assert data.inputs[:, 0].tolist() == [1, 2, 3]
    assert data.features == ["x", "k=a", "k=b", "k="]
    assert data.inputs[2, 1:].tolist() == [0, 0, 1]
    unseen = table("x,k,y\n1,c,0\n", missing="fill", fitted=data.fitted)
    assert unseen.inputs[0, 1:].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("x,y\n1,2\n,3\n", {}, r"t.csv, row 3, column 'x': '': missing"),
        ("x,y\n1,2\n2,NA\n", {}, "row 3, column 'y': 'NA': missing; expected a target"),
        ("x,y\n1,2\nabc,3\n4,5\n", {}, "row 3, column 'x': 'abc': not a number"),
        ("x,y\n1,2\n-inf,3\n", {}, "row 3, column 'x': '-inf': not finite"),
        ("x,y\n007,2\n12,3\n", {}, "row 2, column 'x': '007': a number with leading zeros"),
        ('x,y\n"1,5",2\n"2,5",3\n', {}, "'1,5' .2 such cells.: looks like a number.*decimal"),
        ("x;y\n1.500;2\n2;3\n", {"separator": ";", "decimal": ","}, "'1.500': not a number"),
        ("x,y\n2020-01-01,1\n2020-01-02,2\n", {}, "a date; list the column in `dates`"),
        ("x,y\n2020-01-41,1\n", {"dates": ["x"]}, "row 2.*'2020-01-41': not a date"),
        ("x,y\n16777216,1\n16777217,2\n", {"standardize": False}, "float32 cannot tell them apart"),
        ("x,y\n9007199254740993,1\n1,2\n", {}, "too large to be held exactly"),
        ("x,y\n1,1\n1e300,2\n", {}, "row 3, column 'x': '1e300': too large for float32"),
        ("x,y\n1,1e39\n", {}, "row 2, column 'y': '1e39': too large for float32"),
        ("x,y\n1,3000000000\n", {}, "expected a whole number below 2147483648"),
        ("x,x,y\n1,2,3\n", {}, "several columns 'x'"),
        (",x,y\n0,1,2\n", {}, "column 1 has no name"),
        ("x,y\n1,2\n", {"inputs": ["xx"]}, "no column 'xx'; did you mean 'x'"),
        ("x,y\n1,2\n", {"target": "z"}, "no column 'z'; there are 'x', 'y'"),
        ("x,y\n1,2\n", {"inputs": ["x", "y"]}, "'y' is an input and the target"),
        ("x,y\n1,2\n3\n", {}, "line 3: 1 cells, but the header has 2"),
        ("x,y\n1,2,3\n", {}, "line 2: 3 cells, but the header has 2"),
        ("x;y\n1;2\n", {}, "are its cells separated by ';'"),
        ("", {}, "empty; expected the names"),
        ("x,y\n", {}, "no rows"),
        ("1,2\n3,4\n", {}, "the first row is 1, 2; expected the names"),
        ('x,y\n"1,2\n3,4\n', {}, "cannot be read as a table: unexpected end"),
        ('x,y\n"a\n3",4\n', {}, "row 2, column 'x'.*a text of several lines"),
        (b"x,y\n\xe9,1\n", {}, "not a text in utf-8.*latin-1"),
        (b"x,y\n1\0,1\n", {}, "a zero byte"),
        (b"x,y\n1,1\n", {"name": "t.xlsx"}, "not one of .csv"),
        (b"PAR1", {"name": "t.parquet"}, "cannot be read as a table"),
        (b"x,y\n1,1\n", {"name": "t.csv.gz"}, "cannot be read as a table"),
        ("x,y\n1,1\n", {"encode": "hot"}, "encode is 'hot'"),
        ("x,y\n,1\n", {"missing": "fill"}, "has no value at all"),
        ("x,y\n1,1\n", {"fitted": {"x": 1}}, "`fitted` is of other inputs"),
    ],
)
def test_a_table_that_may_mean_something_else_is_refused_with_its_place(
    text, arguments, message, table
):
    with pytest.raises(UserError, match=message):
        table(text, **arguments)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Corsica,1,true,2007-11-11,Gentoo", "'Corsica': expected one of 'Biscoe', 'Dream'"),
        ("Dream,1,true,2007-11-11,Rockhopper", "'Rockhopper': expected one of 'Adelie', 'Gentoo'"),
        ("Dream,heavy,true,2007-11-11,Gentoo", "column 'mass': 'heavy': not a number"),
        ("Dream,1,maybe,2007-11-11,Gentoo", "column 'female': 'maybe': not true or false"),
        ("Dream,1,true,yesterday,Gentoo", "column 'day': 'yesterday': not a date"),
        ("Dream,1,true,2007-11-11,", "column 'species': '': missing"),
    ],
)
def test_a_test_file_with_what_the_training_file_has_not_is_refused(row, message, table):
    train = table(PENGUINS, "species", dates=["day"])
    text = PENGUINS.partition("\n")[0] + f"\nDream,1,true,2007-11-11,Gentoo\n{row}\n"
    with pytest.raises(UserError, match=rf"row 3, .*{message}"):
        table(text, "species", dates=["day"], fitted=train.fitted)


def test_a_parquet_file_gives_what_its_csv_file_gives(table, tmp_path):
    frame = pandas.read_csv(io.StringIO(PENGUINS), parse_dates=["day"])
    frame["island"] = frame["island"].astype("category")
    frame.to_parquet(tmp_path / "t.parquet")
    read = Table(tmp_path / "t.parquet", "species", dates=["day"])
    wanted = table(PENGUINS, "species", dates=["day"])
    np.testing.assert_array_equal(read.inputs, wanted.inputs)
    np.testing.assert_array_equal(read.targets, wanted.targets)
    assert read.fitted == wanted.fitted
    assert read.checksum() == wanted.checksum()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, None], "row 2, column 'x': nan: missing"),
        ([1.0, np.inf], "row 2, column 'x': inf: not finite"),
        ([[1], [2]], "row 1, column 'x': a ndarray; expected a number"),
        ([datetime.date(2020, 1, 1), None], "column 'x': dates; list it in `dates`"),
        (["a", None], "row 2, column 'x': '': missing"),
        ([2**60, 1], "row 1, column 'x': 1152921504606846976: too large"),
    ],
)
def test_a_parquet_file_with_odd_cells_is_refused(column, message, tmp_path):
    pandas.DataFrame({"x": column, "y": [0.5, 1.5]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=message):
        Table(tmp_path / "t.parquet", "y")


CELLS = [
    "1",
    "-2.5",
    "1e3",
    "",
    "NA",
    "x",
    "true",
    "inf",
    "1,5",
    '"',
    "01",
    "2020-01-01",
    " 7 ",
    "é",
]


@settings(
    max_examples=by_set(80, 600), deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_a_mutated_table_has_every_row_or_is_refused(data, table):
    rows = list(csv.reader(io.StringIO(PENGUINS)))
    for _ in range(data.draw(st.integers(0, 3))):
        row = data.draw(st.integers(0, len(rows) - 1))
        cells = rows[row]
        change = data.draw(st.sampled_from(["cell", "more", "fewer", "twice", "gone", "swap"]))
        if change == "cell" and cells:
            column = data.draw(st.integers(0, len(cells) - 1))
            cells[column] = data.draw(st.one_of(st.sampled_from(CELLS), st.text(max_size=3)))
        elif change == "more":
            cells.append(data.draw(st.sampled_from(CELLS)))
        elif change == "fewer":
            rows[row] = cells[:-1]
        elif change == "twice":
            rows.insert(row, list(cells))
        elif change == "gone" and len(rows) > 1:
            del rows[row]
        else:
            rows[row] = cells[::-1]
    file = io.StringIO()
    separator = data.draw(st.sampled_from([",", ",", ";", "\t"]))
    writer = csv.writer(file, delimiter=separator)
    try:
        writer.writerows(rows)
    except csv.Error:
        return
    content = file.getvalue().encode("utf-8", errors="surrogatepass")
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.binary(max_size=2)) + content[at:]
    arguments = {
        "missing": data.draw(st.sampled_from(["refuse", "fill"])),
        "encode": data.draw(st.sampled_from(["one_hot", "index"])),
        "separator": data.draw(st.sampled_from([None, separator])),
    }
    try:
        read = table(
            content, "species", dates=data.draw(st.sampled_from([[], ["day"]])), **arguments
        )
    except UserError:
        return
    text = content.decode("utf-8-sig")
    counted = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    assert len(read) == len(counted) - 1
    inputs, targets = read.__getitems__(np.arange(len(read)))
    for part in inputs.values() if isinstance(inputs, dict) else [inputs]:
        assert np.isfinite(part).all()
    assert np.isfinite(targets).all()


def test_a_loader_reads_a_table_batch_by_batch(table):
    data = table(PENGUINS, "species", dates=["day"])
    (batch,) = DataLoader(data, 4).batches(1)
    np.testing.assert_array_equal(batch["inputs"], data.inputs)


@pytest.mark.parametrize(("library", "name"), [("pandas", "t.csv"), ("pyarrow", "t.parquet")])
def test_a_library_that_is_not_installed_is_named_with_the_pip_line(
    library, name, table, monkeypatch
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"{name}: needs {library}.*: pip install pandas==.*"):
        table(b"x,y\n1,2\n", name=name)
