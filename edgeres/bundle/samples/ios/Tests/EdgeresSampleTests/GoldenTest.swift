// A unit test: does Core ML on this device give the bundle's golden outputs?
// The folder `bundle` beside this file has model/, golden/ and preprocess.json; README.md has the commands.
import CoreML
import XCTest

final class GoldenTest: XCTestCase {
    struct Golden: Decodable {
        struct Tensor: Decodable { let shape: [Int]; let dtype: String }
        let model: String, samples: Int, input: Tensor, output: Tensor, tolerance: Float
    }

    func testOutputsAreGolden() throws {
        let root = Bundle.module.resourceURL!.appendingPathComponent("bundle")
        let read = { (name: String) in try Data(contentsOf: root.appendingPathComponent(name)) }
        let golden = try JSONDecoder().decode(Golden.self, from: read("golden/golden.json"))
        let inputs = try read("golden/inputs.bin").floats, expected = try read("golden/outputs.bin").floats
        let compiled = try MLModel.compileModel(at: root.appendingPathComponent(golden.model))
        let model = try MLModel(contentsOf: compiled)
        let input = model.modelDescription.inputDescriptionsByName.keys.first!
        let output = model.modelDescription.outputDescriptionsByName.keys.first!
        let size = golden.input.shape.reduce(1, *), classes = golden.output.shape[0]
        for i in 0..<golden.samples {
            let array = try MLMultiArray(shape: ([1] + golden.input.shape) as [NSNumber], dataType: .float32)
            for j in 0..<size { array[j] = NSNumber(value: inputs[i * size + j]) }
            let answer = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: [input: array]))
            let found = answer.featureValue(for: output)!.multiArrayValue!
            let mine = (0..<classes).map { found[$0].floatValue }
            let theirs = Array(expected[i * classes..<(i + 1) * classes])
            for (a, b) in zip(mine, theirs) { XCTAssertEqual(a, b, accuracy: golden.tolerance) }
            XCTAssertEqual(mine.firstIndex(of: mine.max()!), theirs.firstIndex(of: theirs.max()!))
        }
    }
}

private extension Data {
    var floats: [Float] { withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } }
}
